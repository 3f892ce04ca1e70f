"""Audio in ZIP archives, as fairseq's own paths name it."""

import io
import zipfile

import numpy as np
import pytest
import soundfile
from fairseq.data.audio.audio_utils import parse_path, read_from_stored_zip

from fairseq_resynth.data.audio.files import audio_length, read_audio
from fairseq_resynth.data.datasets.wav_dataset import WavDataset
from fairseq_resynth.data.manifest import Manifest, read_manifest, write_manifest

MEMBERS = {"a.flac": "FLAC", "b.wav": "WAV", "c.npy": "float", "d.npy": "int16"}


def encoded(kind: str, wav: np.ndarray) -> bytes:
    stream = io.BytesIO()
    if kind == "int16":
        np.save(stream, (wav * 32768).astype(np.int16))
    elif kind == "float":
        np.save(stream, wav)
    else:
        soundfile.write(stream, wav, 16000, format=kind, subtype="PCM_16")
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path):
    """An archive of four members of 4000 samples, and their paths."""
    wav = np.random.default_rng(0).integers(-3000, 3000, 4000).astype(np.float32) / 32768
    with zipfile.ZipFile(tmp_path / "speech.zip", "w", zipfile.ZIP_STORED) as file:
        for name, kind in MEMBERS.items():
            file.writestr(name, encoded(kind, wav))
        # data begins behind the local header of 30 bytes and the name
        paths = {
            info.filename: f"{tmp_path}/speech.zip:{info.header_offset + 30 + len(info.filename)}:"
            f"{info.file_size}"
            for info in file.infolist()
        }
    return wav, paths


@pytest.mark.parametrize("name", list(MEMBERS))
def test_members_and_their_ranges_are_read(archive, name):
    wav, paths = archive
    assert audio_length(paths[name]) == 4000
    assert np.array_equal(read_audio(paths[name]), wav)
    assert np.array_equal(read_audio(paths[name], 1000, 500), wav[1000:1500])
    assert np.array_equal(read_audio(paths[name], 3900, 500), wav[3900:])
    file, (offset, length) = parse_path(paths[name])
    assert read_from_stored_zip(file, offset, length) == encoded(MEMBERS[name], wav)


def test_a_manifest_of_an_archive(archive, tmp_path):
    wav, paths = archive
    rows = [(path.rpartition("/")[2], 4000) for path in paths.values()]
    write_manifest(tmp_path / "train.tsv", tmp_path, rows)
    manifest = read_manifest(tmp_path / "train.tsv")
    assert len({manifest.name(row) for row in range(4)}) == 4
    offset = paths["a.flac"].split(":")[1]
    assert manifest.name(0) == f"speech_{offset}"
    dataset = WavDataset(tmp_path, "train", 320, 3200, 1, moving=False)
    windows = np.lib.stride_tricks.sliding_window_view(wav, 3200)
    for row in range(4):
        assert (windows == dataset[row]["wav"].numpy()).all(axis=1).sum() == 1


def test_mistakes_are_named(archive, tmp_path):
    _, paths = archive
    archive_path, offset, length = paths["b.wav"].split(":")
    with pytest.raises(FileNotFoundError, match=r"none.zip does not exist"):
        read_audio(f"{tmp_path}/none.zip:0:10")
    with pytest.raises(ValueError, match=r"the archive has \d+ bytes, expected \d+ or more"):
        read_audio(f"{archive_path}:{offset}:{10**9}")
    with pytest.raises(ValueError, match="stored without compression"):
        read_audio(f"{archive_path}:{int(offset) + 50}:{length}")
    with pytest.raises(ValueError, match="0 bytes"):
        read_audio(f"{archive_path}:{offset}:0")


@pytest.mark.parametrize("bad", [np.zeros((3, 80), np.float32), np.array([{}], dtype=object)])
def test_features_and_objects_are_no_waveform(tmp_path, bad):
    stream = io.BytesIO()
    np.save(stream, bad, allow_pickle=True)
    (tmp_path / "x.zip").write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=r"expected a waveform \(T,\)"):
        read_audio(f"{tmp_path}/x.zip:0:{len(stream.getvalue())}")


def test_other_paths_are_paths():
    manifest = Manifest(None, None, ["a.b/c.flac", "d.zip"], [1, 2])
    assert [manifest.name(row) for row in range(2)] == ["a.b/c", "d"]
