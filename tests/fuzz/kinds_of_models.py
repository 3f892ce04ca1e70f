"""Bundles, checkpoints of other projects, k-means, and the codec's models and files."""

import shutil
import zlib
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from kinds import Kind, npy, one, saved
from kinds_of_data import ENCODER
from mutations import (
    change_array,
    change_bytes,
    change_json,
    change_lines,
    change_safetensors,
    change_tar,
    change_zip,
)
from published_checkpoints import golden, make
from tiny_bundles import SIZES
from tiny_voices import STATISTICS

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel, Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.entropy.network import IntegerNetwork
from fairseq_resynth.codec.folders import _HEAD as ARCHIVE_HEAD
from fairseq_resynth.codec.folders import MAGIC, Archive, _digest, write_archive
from fairseq_resynth.codec.format.bitstream import SpeechCode, read_bytes, write_bytes
from fairseq_resynth.data.streams import (
    StreamSpec,
    Utterance,
)
from fairseq_resynth.encoders.content import KMeans, load_kmeans, read_centroids
from fairseq_resynth.inference.bundle import Bundle, load_bundle, save_bundle
from fairseq_resynth.inference.checkpoints import load_unit_generator
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.interop.code_hifigan import import_code_hifigan
from fairseq_resynth.interop.published_checkpoints import ImportOptions
from fairseq_resynth.interop.speech_resynthesis import (
    _statistics_by_name,
    import_speech_resynthesis,
)
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.quantizers import F0Vqvae, F0VqvaeSizes
from fairseq_resynth.resynthesizer import Resynthesizer


@lru_cache
def _entropy_model(with_network: bool) -> EntropyModel:
    rng = np.random.default_rng(0)
    rows = [Utterance(rng.integers(0, 10, 20), rng.integers(0, 4, 10)) for _ in range(8)]
    model = fit_entropy_model(
        rows, Settings(10, unit_hop=160, num_f0_codes=4), TrainingOptions(hidden_size=0)
    )
    if not with_network:
        return model
    hidden, depth, runs = 8, 4, 25
    shapes = {
        "unit_input": (11, 3 * hidden),
        "run_input": (runs, 3 * hidden),
        "recurrent": (3 * hidden, hidden),
        "recurrent_bias": (hidden,),
        "unit_output": (11, hidden),
        "unit_output_bias": (11,),
        "run_hidden": (depth, hidden),
        "run_hidden_unit": (11, depth),
        "run_output": (runs, depth),
        "run_output_bias": (runs,),
    }
    arrays = {
        name: rng.integers(-900, 900, shape).astype(np.int32) for name, shape in shapes.items()
    }
    weights = {name: np.r_[model.weights[name] // 2, 1 << 15] for name in ("unit", "run")}
    return replace(model, network=IntegerNetwork(**arrays), weights={**model.weights, **weights})


def _stream() -> bytes:
    code = SpeechCode(
        np.array([1, 1, 2, 3, 3, 9, 400]), np.array([1, 3]), np.array([0.5, -1.0]), 2300
    )
    return write_bytes(_entropy_model(False), b"0" * 16, code)


def _read_stream(path: Path) -> None:
    read_bytes(_entropy_model(False), b"0" * 16, path.read_bytes())


def _read_member(path: Path) -> None:
    if len(data := path.read_bytes()) > 8:
        read_bytes(_entropy_model(False), b"0" * 16, data[:-3], checksum=False)


def _archive(folder: Path) -> None:
    write_archive(folder / "a.rsyna", b"0" * 16, [("a/b", _stream()), ("c", _stream())])


def _read_archive(path: Path) -> None:
    for _, data in Archive(path):
        read_bytes(_entropy_model(False), b"0" * 16, data, checksum=False)


def change_archive(data: bytes, rng: Random) -> bytes:
    """Content that is changed under a checksum that fits it."""
    _, identity, _, packed, unpacked = ARCHIVE_HEAD.unpack_from(data)
    rest = data[ARCHIVE_HEAD.size :]
    index, bodies = zlib.decompress(rest[:packed]), rest[packed:]
    change = rng.randrange(3)
    index = change_lines(index, rng) if change == 0 else index
    bodies = change_bytes(bodies, rng) if change == 1 else bodies
    compressed = zlib.compress(index)
    unpacked = rng.choice([0, 1, len(index) + 1, (1 << 32) - 1]) if change == 2 else len(index)
    rest = compressed + bodies
    return (
        ARCHIVE_HEAD.pack(
            MAGIC,
            identity,
            _digest(identity, len(compressed), unpacked, rest),
            len(compressed),
            unpacked,
        )
        + rest
    )


def _use_entropy_model(path: Path) -> None:
    model = EntropyModel.load(path)
    write_bytes(model, b"0" * 16, SpeechCode(np.array([1, 1, 2]), np.array([1])))


def _use_centroids(path: Path) -> None:
    KMeans(read_centroids(path), {})


def _kmeans(folder: Path) -> None:
    description = {"feature_type": "logmel", "layer": None, "unit_hop": 160, "sample_rate": 16000}
    KMeans(np.eye(10, 80, dtype=np.float32), description).save(folder / "km.safetensors")


def _use_kmeans(path: Path) -> None:
    kmeans = load_kmeans(path)
    kmeans.assign(torch.zeros(2, kmeans.centroids.shape[1]))


def write_bundle(folder: Path) -> None:
    means = {"anna": "1 0 0 0", "boris": "0 1 0 0"}
    streams = StreamSpec(
        160,
        10,
        1280,
        4,
        ("anna", "boris"),
        speaker_statistics=STATISTICS,
        speaker_dim=4,
        speaker_vectors={**ENCODER, "means": means},
        tokens={"style": ("calm", "sad")},
        units={"feature_type": "logmel", "num_clusters": 10, "unit_hop": 160},
        f0_codes={"num_codes": 4, "f0_code_hop": 1280},
    )
    sizes = UnitHifiganSizes(**{**SIZES, "upsample_initial_channel": 32})
    f0_sizes = F0VqvaeSizes(num_codes=4, code_dim=4, width=4)
    generator = build_vocoder(sizes, streams).eval()
    _kmeans(folder)
    save_bundle(
        folder / "bundle",
        Bundle(generator, sizes, streams, F0Vqvae(f0_sizes), f0_sizes, folder / "km.safetensors"),
    )
    _entropy_model(False).save(folder / "bundle" / "entropy.safetensors")


def _use_bundle(path: Path) -> None:
    bundle = load_bundle(path.parent)
    if bundle.kmeans:
        load_kmeans(bundle.kmeans)
    system = Resynthesizer.from_pretrained(path.parent)
    system.decode(np.array([[1, 2, 3, 4]]), np.array([[1]]), speaker="anna", style="sad")


def _packed_bundle(folder: Path, kind: str) -> None:
    write_bundle(folder)
    shutil.make_archive(str(folder / "bundle"), kind, folder / "bundle")
    for path in (folder / "bundle").iterdir():
        path.unlink()


def _unpack(path: Path) -> None:
    if path.is_dir():  # a bundle may be called so
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESYNTH_CACHE", str(path.parent / "bundle"))
        try:
            found = find_bundle(path)
            assert found.resolve().is_relative_to(path.parent / "bundle")
        finally:
            shutil.rmtree(path.parent / "bundle")
            (path.parent / "bundle").mkdir()


def _checkpoint(folder: Path) -> None:
    streams = StreamSpec(320, 10, speakers=("anna", "boris"))
    sizes = UnitHifiganSizes(**SIZES)
    generator = build_vocoder(sizes, streams)
    state = {
        "cfg": {"model": {"_name": "unit_hifigan", **asdict(sizes)}},
        "model": {
            f"unit_generator.{name}": value for name, value in generator.state_dict().items()
        },
        "task_state": {"streams": streams.to_dict()},
        "extra_state": {},
    }
    torch.save(state, folder / "checkpoint.pt")


def _published(folder: Path) -> None:
    make(
        folder / "in",
        StreamSpec(320, 10, speakers=("anna", "boris")),
        {"multispkr": "_", "num_speakers": 2, "model_in_dim": 16, "f0_stats": "f0_stats.pth"},
    )
    statistics = {0: {"f0_mean": 100.0, "f0_std": 20.0}, 1: {"f0_mean": 200.0, "f0_std": 30.0}}
    torch.save(statistics, folder / "in" / "f0_stats.pth")


def _import(path: Path) -> None:
    import_speech_resynthesis(path.parent, ImportOptions(f0_stats=path.parent / "f0_stats.pth"))


def _read_f0_statistics(path: Path) -> None:
    _statistics_by_name(path, ("anna", "boris"), None)


def _import_fairseq(path: Path) -> None:
    import_code_hifigan(path.parent)


MODELS = {
    "a.rsyn": one("a.rsyn", _stream, [_read_stream, _read_member], change_bytes),
    "a.rsyna": Kind(_archive, "a.rsyna", [_read_archive], [change_bytes, change_archive]),
    "entropy tables": Kind(
        lambda folder: _entropy_model(False).save(folder / "entropy.safetensors"),
        "entropy.safetensors",
        [EntropyModel.load],
        [change_bytes, change_safetensors],
        30,
    ),
    "entropy network": Kind(
        lambda folder: _entropy_model(True).save(folder / "entropy.safetensors"),
        "entropy.safetensors",
        [_use_entropy_model],
        [change_bytes, change_safetensors],
        30,
    ),
    "k-means": Kind(_kmeans, "km.safetensors", [_use_kmeans], [change_bytes, change_safetensors]),
    "centroids": one(
        "km.npy", partial(saved, npy, np.eye(4)), [_use_centroids], change_bytes, change_array
    ),
    "bundle's config.json": Kind(
        write_bundle, "bundle/config.json", [_use_bundle], [change_bytes, change_json], 40
    ),
    "bundle's generator": Kind(
        write_bundle,
        "bundle/generator.safetensors",
        [_use_bundle],
        [change_bytes, change_safetensors, change_safetensors],
        20,
    ),
    "bundle's F0 quantizer": Kind(
        write_bundle,
        "bundle/f0_vqvae.safetensors",
        [_use_bundle],
        [change_bytes, change_safetensors, change_safetensors],
        20,
    ),
    "bundle.tar.gz": Kind(
        lambda folder: _packed_bundle(folder, "gztar"),
        "bundle.tar.gz",
        [_unpack],
        [change_bytes, change_tar],
        20,
    ),
    "bundle.zip": Kind(
        lambda folder: _packed_bundle(folder, "zip"),
        "bundle.zip",
        [_unpack],
        [change_bytes, change_zip],
        20,
    ),
    "checkpoint": Kind(
        _checkpoint, "checkpoint.pt", [load_unit_generator], [change_bytes, change_zip], 60
    ),
    "published weights": Kind(
        _published, "in/g_00000100", [_import, _import_fairseq], [change_bytes, change_zip], 40
    ),
    "published config": Kind(
        _published, "in/config.json", [_import, _import_fairseq], [change_bytes, change_json], 60
    ),
    "published F0 statistics": Kind(
        _published, "in/f0_stats.pth", [_read_f0_statistics], [change_bytes, change_zip], 60
    ),
    "published F0 quantizer": Kind(
        lambda folder: golden("f0_quantizer", folder / "in"),
        "in/config.json",
        [_import],
        [change_bytes, change_json],
        20,
    ),
}
