"""What a GPU computes is what the CPU computes, within the tolerance of each test.

python -m pytest tests/gpu                               # on a machine with a GPU
RESYNTH_TEST_DEVICE=cpu python -m pytest tests/gpu       # tries the tests themselves: the CPU against the CPU
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import options
from small_corpus import (
    REPOSITORY,
    TINY_MODEL,
    fairseq_train,
    train_arguments,
    write_data,
    write_f0_data,
)
from tiny_checkpoints import save_hubert

from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.streams import StreamSpec, read_utterances
from fairseq_resynth.encoders.content import ContentEncoder, KMeans, build_encoder
from fairseq_resynth.encoders.frames import LogMelEncoder
from fairseq_resynth.modules import losses
from fairseq_resynth.modules.architectures import ARCHITECTURES, build_vocoder, sizes_class
from fairseq_resynth.modules.discriminators.families import FAMILIES, build_discriminators
from fairseq_resynth.modules.quantizers import (
    ContentVqvaeSizes,
    F0Vqvae,
    F0VqvaeSizes,
    build_content_vqvae,
)
from fairseq_resynth.preparation.kmeans import fit_centroids
from fairseq_resynth.preparation.units import Reading, quantize_split
from fairseq_resynth.resynthesizer import Resynthesizer

DEVICE = os.environ.get("RESYNTH_TEST_DEVICE", "cuda")
CUDA = DEVICE.startswith("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA and not torch.cuda.is_available(),
        reason="no CUDA device; RESYNTH_TEST_DEVICE=cpu tries these tests without one",
    ),
]
TOLERANCE = 2e-4  # of float32 without TF32, relative to the largest value
TRAINING_TOLERANCE = (
    2e-2  # of weights after a few updates: Adam amplifies rounding errors of tiny gradients
)
BUNDLE = REPOSITORY / "examples" / "asterisk" / "bundle"
HELD_OUT = REPOSITORY / "examples" / "asterisk" / "held_out"
SPEECH = REPOSITORY / "examples" / "asterisk" / "speech" / "english" / "dir-welcome.flac"
TINY = {
    "unit_hifigan": {
        "embedding_dim": 8,
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": "3",
        "resblock_dilation_sizes": "1,3",
    },
    "unit_vocos": {"embedding_dim": 8, "dim": 16, "intermediate_dim": 32, "num_layers": 2},
}
TINY["unit_source_filter"] = TINY["unit_vocos"]
STREAMS = StreamSpec(320, 10, 1280, 5, speakers=("anna", "boris"))


@pytest.fixture(autouse=True)
def exact_convolutions():
    """TF32 has ten bits of mantissa; without it a GPU's float32 is comparable with a CPU's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def assert_close(found, expected, tolerance: float = TOLERANCE, what: str = "") -> None:
    """Compares two tensors, or nested lists of them, relative to the largest value of the expected one."""
    if isinstance(expected, list | tuple):
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_close(*pair, tolerance, f"{what}[{index}]")
        return
    found, expected = torch.as_tensor(found).cpu().float(), torch.as_tensor(expected).float()
    assert found.shape == expected.shape and torch.isfinite(found).all(), what
    scale = max(float(expected.abs().max()), 1e-6)
    error = float((found - expected).abs().max()) / scale
    assert error <= tolerance, f"{what}: {error:.2e} of the largest value, at most {tolerance:.0e}"


def on_both(build: Callable, run: Callable) -> tuple:
    """The results of `run(module, move)` for the same module on the device and on the CPU."""
    results = []
    for device in (DEVICE, "cpu"):
        torch.manual_seed(0)
        module = build().to(device)
        results.append(run(module, lambda value, device=device: value.to(device)))
    return tuple(results)


def with_gradients(module: torch.nn.Module, output) -> list:
    """The output, and the gradients of the mean of its squares for all parameters that it depends on."""
    module.zero_grad()
    output.float().square().mean().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    return [output.detach(), *gradients]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_input() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = 80
    return {
        "units": torch.randint(10, (2, frames // 4), generator=generator),
        "f0_codes": torch.randint(5, (2, frames // 16), generator=generator),
        "speaker": torch.tensor([0, 1]),
    }


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_generators(arch):
    given = {}
    if arch.startswith("unit_source_filter"):
        contour = torch.stack([torch.linspace(100, 200, 80), (torch.arange(80) > 20).float()])
        given = {"source_f0": contour.expand(2, -1, -1)}

    def run(generator, move):
        inputs = {name: move(value) for name, value in (net_input() | given).items()}
        return with_gradients(generator, generator(**inputs))

    sizes = sizes_class(arch)(**TINY[arch.removesuffix("_small")])
    found, expected = on_both(lambda: build_vocoder(sizes, STREAMS).eval(), run)
    # The phase of pulses adds up over an utterance.
    assert_close(found, expected, 2e-3 if given else TOLERANCE, arch)


@pytest.mark.parametrize("family", FAMILIES)
def test_discriminators(family):
    def run(discriminators, move):
        wav = move(0.1 * noise(2, 1, 5120)).requires_grad_()
        scores, maps = discriminators(wav)
        sum(score.square().mean() for score in scores).backward()
        return [*scores, *(layer for layers in maps for layer in layers), wav.grad]

    found, expected = on_both(lambda: build_discriminators(family, 1 / 16).eval(), run)
    assert_close(found, expected, what=family)


@pytest.mark.parametrize("scales", losses.MEL_SCALES)
def test_mel_distances(scales):
    def run(distance, move):
        fake = move(0.1 * noise(2, 1, 5120, seed=1)).requires_grad_()
        value = distance(move(0.1 * noise(2, 1, 5120)), fake)
        value.backward()
        return [value.detach(), fake.grad]

    found, expected = on_both(lambda: losses.MelLoss(16000, losses.MEL_SCALES[scales]), run)
    assert_close(found, expected, 1e-3, scales)  # a logarithm of magnitudes near 0


@pytest.mark.parametrize("name", losses.ADVERSARIAL_LOSSES)
def test_adversarial_losses_and_feature_matching(name):
    def run(_, move):
        scores = [move(noise(2, 30, seed=seed)) for seed in range(6)]
        of_discriminators, of_generator = losses.ADVERSARIAL_LOSSES[name]
        maps = [[score] for score in scores]
        matching = losses.feature_matching_loss(maps[:3], maps[3:])
        return [of_discriminators(scores[:3], scores[3:]), of_generator(scores[3:]), matching]

    assert_close(*on_both(torch.nn.Identity, run), what=name)


def test_quantizers():
    def run_f0(f0_vqvae, move):
        quantized = f0_vqvae(move(noise(2, 1, 320)))
        return [value.detach() for value in quantized[:2]]

    found, expected = on_both(lambda: F0Vqvae(F0VqvaeSizes(width=8, code_dim=8)).eval(), run_f0)
    assert_close(found, expected, what="f0_vqvae")

    def run_content(content_vqvae, move):
        return [value.detach() for value in content_vqvae(move(0.1 * noise(2, 1, 6400)))[:2]]

    def build():
        sizes = ContentVqvaeSizes(**TINY["unit_hifigan"], encoder_width=8)
        return build_content_vqvae(sizes).eval()

    assert_close(*on_both(build, run_content), what="content_vqvae")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Utterances of noise with random streams and an F0 cache."""
    lengths = {"train": [16000, 20480, 32000, 17920], "valid": [16000], "test": [16000]}
    return write_f0_data(tmp_path_factory.mktemp("gpu") / "data", lengths)


def arguments(data: Path, folder: Path, *extra, device: str = DEVICE) -> list[str]:
    """Arguments of a tiny training on the device."""
    words = train_arguments(data, folder, *extra)
    if extra[0] == "--arch":  # in place of the tiny HiFi-GAN
        start = words.index("--arch")
        del words[start : start + len(TINY_MODEL)]
    return [word for word in words if word != "--cpu" or device == "cpu"]


def train(data: Path, folder: Path, *extra, device: str = DEVICE) -> dict:
    """The last checkpoint of a tiny training on the device."""
    fairseq_train(*arguments(data, folder, *extra, device=device))
    return torch.load(folder / "checkpoint_last.pt", weights_only=True, map_location="cpu")


def assert_same_weights(found: dict, expected: dict, tolerance: float) -> None:
    assert found["optimizer_history"][-1]["num_updates"] == 5
    for part in ("model", "criterion"):
        for name, value in expected[part].items():
            if torch.is_tensor(value) and value.is_floating_point():
                assert_close(found[part][name], value, tolerance, f"{part}.{name}")


SOURCE_FILTER = (
    "--arch unit_source_filter --dim 16 --intermediate-dim 16 --num-layers 1 --mel-loss multi "
    "--discriminators mpd,mbstft --gan-update simultaneous"
).split()


def option_exists(name: str) -> bool:
    """Whether the task has an option."""
    parser = options.get_training_parser()
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "print_help", lambda self, file=None: None)
        options.parse_args_and_arch(parser, ["x", "--task", "unit_resynthesis", "--help"])
    return any(name in action.option_strings for action in parser._actions)


class TestTraining:
    """Trainings of five updates with the paper's networks, made tiny."""

    @pytest.fixture(scope="class")
    def on_cpu(self, data, tmp_path_factory) -> dict:
        return train(data, tmp_path_factory.mktemp("cpu"), "--max-update", 5, device="cpu")

    @pytest.fixture(scope="class")
    def on_device(self, data, tmp_path_factory) -> dict:
        return train(data, tmp_path_factory.mktemp("device"), "--max-update", 5)

    def test_updates_equal_those_of_the_cpu(self, on_device, on_cpu):
        assert_same_weights(on_device, on_cpu, TRAINING_TOLERANCE)

    def test_resumed_training_goes_on(self, data, tmp_path, on_device):
        train(data, tmp_path, "--max-update", 3)
        assert_same_weights(train(data, tmp_path, "--max-update", 5), on_device, TRAINING_TOLERANCE)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_source_filter_learns(self, workers, data, tmp_path):
        extra = [*SOURCE_FILTER, "--max-update", 5, "--num-workers", workers, "--store-ema"]
        found = train(data, tmp_path, *extra)
        assert found["optimizer_history"][-1]["num_updates"] == 5
        assert all(torch.isfinite(value).all() for value in found["model"].values())

    def test_bfloat16_stays_near_float32(self, data, tmp_path, on_device):
        found = train(data, tmp_path, "--max-update", 5, "--autocast", "bfloat16")
        assert all(v.dtype != torch.bfloat16 for v in found["model"].values())
        assert_same_weights(found, on_device, 0.1)

    def test_graphs_equal_eager_steps(self, data, tmp_path, on_device):
        if not option_exists("--cuda-graphs"):
            pytest.skip("this version has no --cuda-graphs")
        extra = ["--cuda-graphs"] if CUDA else []
        found = train(data, tmp_path, "--max-update", 5, *extra)
        assert_same_weights(found, on_device, TRAINING_TOLERANCE)

    def test_one_rank_trains_as_none(self, data, tmp_path, on_device):
        """NCCL on a GPU, gloo on the CPU, in a process of its own."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        words = arguments(
            data, tmp_path, "--max-update", 5, "--distributed-world-size", 1,
            "--distributed-rank", 0, "--distributed-no-spawn", "--distributed-backend",
            "nccl" if CUDA else "gloo", "--distributed-init-method", f"tcp://127.0.0.1:{port}",
        )  # fmt: skip
        command = [sys.executable, "-m", "fairseq_cli.train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True, map_location="cpu")
        assert_same_weights(found, on_device, TRAINING_TOLERANCE)


def mel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mel L1 distance of two waveforms, in nepers."""
    log_mel = losses.LogMelSpectrogram()
    pair = [log_mel(torch.from_numpy(wav).view(1, 1, -1)) for wav in (one, other)]
    return float(losses.mel_l1(*pair))


@pytest.fixture(scope="module")
def utterances():
    """Streams of two prompts of the committed bundle."""
    return list(read_utterances(HELD_OUT, ["test"]))[:2]


def test_synthesis_of_the_published_voice(utterances):
    """A value of F0 at the edge between two steps of 5 cents may become the other: hence mel distances."""
    systems = [
        Resynthesizer.from_pretrained(BUNDLE, device=device, decode_only=True)
        for device in (DEVICE, "cpu")
    ]
    for utterance in utterances:
        wavs = [
            system.decode(utterance.units[None], utterance.f0_codes[None], "russian")[0, 0]
            for system in systems
        ]
        assert wavs[0].shape == wavs[1].shape and np.abs(wavs[1]).max() > 0.05
        assert mel_distance(*wavs) < 0.05


def test_codec_streams(utterances):
    codecs = [
        SpeechCodec.from_pretrained(BUNDLE, device=device, decode_only=True)
        for device in (DEVICE, "cpu")
    ]
    for utterance in utterances:
        packed = [codec.pack(utterance) for codec in codecs]
        assert packed[0] == packed[1]  # the context model is integer arithmetic on the CPU
        wavs = [codec.decode(packed[0], "english") for codec in codecs]
        assert len(wavs[0]) == len(wavs[1]) and mel_distance(*wavs) < 0.05


def test_units_of_log_mel():
    """Frames that are equally far from two centroids may go to the other one."""
    wav, _ = load_any_audio(SPEECH)
    features = LogMelEncoder().features([torch.from_numpy(wav)])[0]
    centroids = features[torch.randperm(len(features))[:20]].numpy()
    encoders = [build_encoder("logmel", device=device) for device in (DEVICE, "cpu")]
    assert_close(*(encoder.features([torch.from_numpy(wav)])[0] for encoder in encoders))
    kmeans = KMeans(centroids, encoders[1].description())
    units = [ContentEncoder(encoder, kmeans).encode(wav) for encoder in encoders]
    assert np.mean(np.asarray(units[0]) == np.asarray(units[1])) >= 0.99


def test_features_of_hubert(tmp_path):
    path = save_hubert(tmp_path / "hubert.pt", "dict")
    wavs = [0.1 * noise(16000), 0.1 * noise(23456, seed=1)]
    encoders = [build_encoder("hubert", path, 2, device) for device in (DEVICE, "cpu")]
    assert_close(*(encoder.features(wavs) for encoder in encoders), 1e-3, "hubert")


def test_features_of_whisper(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "decoder_layers": 1}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**sizes, vocab_size=100, num_mel_bins=80)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = 1
    config.decoder_start_token_id = 1
    transformers.WhisperModel(config).eval().save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    wavs = [0.1 * noise(16000), 0.1 * noise(23456, seed=1)]
    encoders = [build_encoder("hf", tmp_path, 2, device) for device in (DEVICE, "cpu")]
    assert_close(*(encoder.features(wavs) for encoder in encoders), 1e-3, "whisper")


def test_k_means():
    """The same draws on every device; a tie may fall otherwise, and everything after it differs a little."""
    frames = np.cumsum(noise(30, 100, 8).numpy(), axis=1).reshape(-1, 8)
    distances = [fit_centroids(frames, 40, 0, device)[1] for device in (DEVICE, "cpu")]
    assert distances[0] == pytest.approx(distances[1], rel=0.02)
    kmeans = KMeans(fit_centroids(frames, 40, 0, DEVICE)[0], {})
    found = kmeans.assign(torch.from_numpy(frames)).numpy()
    squares = ((frames - kmeans.centroids[found]) ** 2).sum(1)
    assert squares.mean() == pytest.approx(distances[0], rel=0.01)


def test_units_in_batches_on_a_device(tmp_path):
    """`quantize` with batches that are read ahead, beside one file at a time on the CPU."""
    data = write_data(tmp_path / "data", {"train": [16000, 9001, 30000, 4000, 16000, 12345]})
    manifest, units = read_manifest(data / "train.tsv"), []
    for device, reading in ((DEVICE, Reading(80_000, 2)), ("cpu", Reading())):
        encoder = build_encoder("logmel", device=device)
        centroids = np.random.default_rng(0).normal(size=(20, 80))
        content = ContentEncoder(encoder, KMeans(centroids, encoder.description()))
        target = tmp_path / str(len(units)) / "train.units"
        assert quantize_split(manifest, target, content, Shard(), reading).joined
        units.append(np.array(target.read_text().split()))
    first, second = units
    assert len(first) == len(second) and np.mean(first == second) >= 0.99


def test_the_published_loop_runs(tmp_path):
    """The peer of the training benchmark, tiny, on whatever device there is."""
    command = [sys.executable, REPOSITORY / "benchmarks" / "published_loop.py", "--tiny"]
    command += ["--batch", "2", "--seconds", "0.1", "--json", tmp_path / "rows.json"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    row = json.loads((tmp_path / "rows.json").read_text())[0]
    assert row["updates_per_second"] > 0 and np.isfinite(row["last_loss"])
