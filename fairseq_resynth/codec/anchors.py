"""Codecs that a user would pick instead, behind one interface: waveform in, waveform and bytes out."""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.data.audio import SAMPLE_RATE, load_any_audio, resample, write_audio
from fairseq_resynth.evaluation.baselines import codec2, parse_baselines

DEFAULT = "opus:6,opus:9,opus:12,codec2:700,codec2:1200,codec2:1600,codec2:2400,speex:4"
NARROW = 8000  # Hz
Coder = Callable[[np.ndarray], tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Anchor:
    """A codec at one rate.

    Attributes:
        family: points of one family are joined in the plot.
        label: of the point.
        code: maps (T,) float32 at 16 kHz to the decoded (T,) and the bytes of its packets, headers left out.
        missing: what to install, or an empty string.
    """

    family: str
    label: str
    code: Coder
    missing: str = ""


def speex(wav: np.ndarray, kilobits: float = 4.0) -> tuple[np.ndarray, int]:
    """Speex, narrow band (Valin, 2006), by its programs; the paper's rate is 4 kbit/s."""
    import av

    narrow = np.pad(np.clip(resample(wav, SAMPLE_RATE, NARROW), -1, 1), (0, 480))
    with tempfile.TemporaryDirectory() as folder:
        source, coded, decoded = (Path(folder, name) for name in ("in.wav", "a.spx", "out.wav"))
        write_audio(source, narrow, NARROW)
        rate = ["--narrowband", "--bitrate", str(int(1000 * kilobits))]
        for command in (["speexenc", *rate, source, coded], ["speexdec", coded, decoded]):
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
        with av.open(str(coded)) as container:
            size = sum(packet.size for packet in container.demux(audio=0))
        again, rate = load_any_audio(decoded)
    return fit(resample(again, rate, SAMPLE_RATE), len(wav)), size


def encodec(wav: np.ndarray, model, bandwidth: float) -> tuple[np.ndarray, int]:
    """EnCodec (Défossez et al., 2022) by `transformers`, without its entropy coder.

    Args:
        wav: (T,) float32 at 16 kHz.
        model: `transformers.EncodecModel`.
        bandwidth: kbit/s, one of the model's.
    """
    import torch

    rate = model.config.sampling_rate
    inputs = torch.from_numpy(resample(wav, SAMPLE_RATE, rate))[None, None]
    with torch.inference_mode():
        coded = model.encode(inputs, bandwidth=bandwidth)
        decoded = model.decode(coded.audio_codes, coded.audio_scales)[0]
    bits = coded.audio_codes.numel() * int(model.config.codebook_size - 1).bit_length()
    return fit(resample(decoded[0, 0].numpy(), rate, SAMPLE_RATE), len(wav)), -(-bits // 8)


def fit(wav: np.ndarray, length: int) -> np.ndarray:
    """Cuts or pads (n,) to (length,)."""
    return np.pad(wav[:length], (0, max(0, length - len(wav)))).astype(np.float32)


def parse_anchors(text: str, encodec_folder: str | Path | None = None) -> list[Anchor]:
    """Parses `opus:6,codec2:700,speex:4`, and adds EnCodec at its lower rates when a folder is given.

    Args:
        text: kinds with their rates: kbit/s of opus and speex, bit/s of codec2.
        encodec_folder: of `transformers.EncodecModel`.

    Raises:
        ValueError: an unknown kind or an impossible rate.
        FileNotFoundError: no such folder.
    """
    anchors = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, rate = item.partition(":")
        if kind == "speex":
            kilobits = _speex_rate(item, rate or "4")
            code = functools.partial(speex, kilobits=kilobits)
            anchors.append(Anchor("Speex", item, code, _missing_speex()))
            continue
        [choice] = parse_baselines(item)
        function = choice.function()
        if kind == "codec2" and choice.argument == 700:
            function = functools.partial(codec2, bits="700C")  # what c2enc calls its mode
        code = functools.partial(_packets, function)
        anchors.append(Anchor(kind.capitalize(), item, code, choice.missing()))
    return anchors + (_encodecs(Path(encodec_folder)) if encodec_folder else [])


def _missing_speex() -> str:
    if shutil.which("speexenc") and shutil.which("speexdec"):
        return ""
    return "the programs speexenc and speexdec are missing: apt-get install speex"


def _speex_rate(item: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 2 <= rate <= 25:
        raise ValueError(f"--anchors {item}: expected 2 to 25 kbit/s")
    return rate


def _packets(code: Callable, wav: np.ndarray) -> tuple[np.ndarray, int]:
    decoded, _, packets = code(wav)
    return decoded, packets


def _encodecs(folder: Path) -> Sequence[Anchor]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: give the folder of EnCodec's weights")
    try:
        from transformers import EncodecModel
    except ImportError as error:
        missing = f"transformers is not installed ({error}): pip install transformers"
        return [Anchor("EnCodec", "encodec", lambda wav: (wav, 0), missing)]
    model = EncodecModel.from_pretrained(folder, local_files_only=True).eval()
    return [
        Anchor(
            "EnCodec", f"encodec:{rate:g}", functools.partial(encodec, model=model, bandwidth=rate)
        )
        for rate in model.config.target_bandwidths
        if rate <= 6
    ]
