"""A small untrained bundle on speaker vectors, with a toy encoder of voices, and sounds other than speech."""

from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.speaker_vectors import format_vector
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.content import KMeans
from fairseq_resynth.encoders.frames import LogMelEncoder
from fairseq_resynth.encoders.speaker import describe_encoder, load_encoder
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder

SPEECH = Path(__file__).resolve().parents[2] / "examples" / "asterisk" / "speech"
ENGLISH = SPEECH / "english" / "dir-welcome.flac"
RUSSIAN = SPEECH / "russian" / "status.flac"
STATISTICS = {
    "speakers": {
        "anna": {"f0_mean": 210.0, "f0_std": 40.0, "num_voiced": 1000},
        "boris": {"f0_mean": 120.0, "f0_std": 20.0, "num_voiced": 1000},
    },
    "global": {"f0_mean": 165.0, "f0_std": 55.0, "num_voiced": 2000},
}


class ToyEncoder(torch.nn.Module):
    """Mean magnitude in bands of the spectrum."""

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        """(1, T) to (1, 16)."""
        spectrum = torch.fft.rfft(wav).abs()
        width = spectrum.size(1) // 16
        return torch.log1p(spectrum[:, : width * 16].reshape(1, 16, width).mean(2))


def save_toy_encoder(folder: Path) -> str:
    """Writes the toy encoder; returns its name for --encoder."""
    torch.jit.script(ToyEncoder()).save(str(folder / "toy.pt"))
    return f"torchscript:{folder / 'toy.pt'}"


def save_kmeans(folder: Path) -> Path:
    """Writes 20 clusters of log-mel frames."""
    encoder = LogMelEncoder()
    features = encoder.features([torch.from_numpy(load_any_audio(RUSSIAN)[0])])[0].numpy()
    picked = np.random.default_rng(0).permutation(len(features))[:20]
    KMeans(features[picked], encoder.description()).save(folder / "kmeans.safetensors")
    return folder / "kmeans.safetensors"


def save_tiny_bundle(folder: Path, with_vectors: bool = True, **streams) -> Path:
    """Writes a bundle on continuous log-F0, whose pitch and vectors are exact."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    fields = {"f0_channels": 2, "f0_codes": {"representation": "continuous", "f0_channels": 2}}
    if with_vectors:
        encoder = save_toy_encoder(folder)
        means = {
            name: format_vector(load_encoder(encoder).embed(load_any_audio(path)[0]))
            for name, path in (("anna", ENGLISH), ("boris", RUSSIAN))
        }
        fields["speaker_vectors"] = {**describe_encoder(encoder), "means": means}
        fields["speaker_dim"] = 16
    fields.update(streams)
    streams = StreamSpec(
        160, 20, speakers=("anna", "boris"), speaker_statistics=STATISTICS, **fields
    )
    model = UnitHifiganSizes(
        embedding_dim=8,
        upsample_initial_channel=32,
        resblock_kernel_sizes="3",
        resblock_dilation_sizes="1,3",
        duration_predictor=True,
        duration_hidden_dim=8,
    )
    generator = build_vocoder(model, streams).eval()
    bundle = Bundle(generator, model, streams, kmeans=save_kmeans(folder.parent))
    save_bundle(folder, bundle)
    return folder


def tone(frequency: float, seconds: float, decay: float = 2.0) -> np.ndarray:
    """A plucked note with five partials."""
    time = np.arange(int(16000 * seconds)) / 16000
    partials = [np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 6)]
    return (0.1 * sum(partials) * np.exp(-decay * time)).astype(np.float32)


def melody() -> np.ndarray:
    """Four seconds of a tune."""
    notes = (110, 123, 131, 147, 165, 147, 131, 110)
    return np.concatenate([tone(frequency, 0.5) for frequency in notes])
