"""Units of a split: resumed, in shards, with failures named."""

import numpy as np
import pytest
import soundfile
import torch

from fairseq_resynth.data.manifest import read_manifest, write_manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.preparation.units import Reading, quantize_split

WHOLE = Shard()
READING = Reading(batch_samples=2000, workers=2)
LENGTHS = (900, 300, 500, 700, 400, 600, 800)


class LengthEncoder:
    """The only unit of a file is its length; counts what it encodes, and can be interrupted."""

    min_samples = 100

    def __init__(self, interrupt_after=99):
        self.description = {"kmeans_hash": "abc"}
        self.encoded, self.interrupt_after = 0, interrupt_after

    def encode_batch(self, wavs):
        if self.encoded + len(wavs) > self.interrupt_after:
            raise KeyboardInterrupt
        self.encoded += len(wavs)
        return [np.array([len(wav)]) for wav in wavs]


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.setattr("fairseq_resynth.preparation.units.BLOCK_ROWS", 3)
    for length in LENGTHS:
        soundfile.write(tmp_path / f"{length}.wav", np.linspace(-0.5, 0.5, length), 16000)
    write_manifest(tmp_path / "train.tsv", tmp_path, [(f"{n}.wav", n) for n in LENGTHS])
    return read_manifest(tmp_path / "train.tsv")


def _run(manifest, encoder=None, shard=WHOLE, reading=READING):
    target = manifest.source.with_suffix(".units")
    return quantize_split(manifest, target, encoder or LengthEncoder(), shard, reading), target


READINGS = [Reading(), Reading(0, 3), Reading(2000, 0), Reading(1000, 2), Reading(10_000, 1)]


@pytest.mark.parametrize("reading", READINGS)
def test_units_do_not_depend_on_how_recordings_are_read(manifest, reading):
    (manifest.root / "400.wav").unlink()
    outcome, target = _run(manifest, reading=reading)
    assert set(outcome.failed) == {"400.wav"} and outcome.written == 6
    part = target.with_name("train.units.1-of-1").read_text()
    assert part == EXPECTED.replace("400\n", "\n")


EXPECTED = "".join(f"{n}\n" for n in LENGTHS)


def test_lines_are_in_the_order_of_the_manifest(manifest):
    outcome, target = _run(manifest)
    assert target.read_text() == EXPECTED
    assert (outcome.rows, outcome.reused, outcome.failed, outcome.joined) == (7, 0, {}, True)
    assert read_json(target.with_name("units.json"))["kmeans_hash"] == "abc"


def test_a_batch_that_does_not_fit_is_one_sentence(manifest):
    class Large(LengthEncoder):
        def encode_batch(self, wavs):
            if len(wavs) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode_batch(wavs)

    with pytest.raises(ValueError, match="0 s of speech in 2 files .* smaller --batch-seconds"):
        _run(manifest, Large())
    outcome, target = _run(manifest, Large(), reading=Reading())
    assert outcome.joined and target.read_text() == EXPECTED


def test_an_interrupted_run_continues(manifest):
    with pytest.raises(KeyboardInterrupt):
        _run(manifest, LengthEncoder(interrupt_after=5))
    assert not manifest.source.with_suffix(".units").exists()
    encoder = LengthEncoder()
    outcome, target = _run(manifest, encoder)
    assert (outcome.reused, encoder.encoded) == (3, 4)  # the first block of three was whole
    assert target.read_text() == EXPECTED


def test_a_part_that_ends_within_a_block_or_line_is_cut(manifest):
    with pytest.raises(KeyboardInterrupt):
        _run(manifest, LengthEncoder(interrupt_after=3))
    part = manifest.source.with_name("train.units.1-of-1")
    part.write_text(part.read_text() + "700\n40")
    outcome, target = _run(manifest)
    assert outcome.reused == 3 and target.read_text() == EXPECTED


def test_finished_units_are_reused_until_something_changes(manifest):
    _run(manifest)
    encoder = LengthEncoder()
    assert _run(manifest, encoder)[0].reused == 7 and encoder.encoded == 0
    encoder.description = {"kmeans_hash": "other"}
    assert _run(manifest, encoder)[0].reused == 0 and encoder.encoded == 7


def test_shards_join_to_the_bytes_of_one_run(manifest):
    states = [_run(manifest, shard=Shard(index, 3))[0].joined for index in (2, 1, 3)]
    assert states == [False, False, True]
    assert manifest.source.with_suffix(".units").read_text() == EXPECTED


def test_failed_rows_are_named_and_tried_again(manifest):
    good = (manifest.root / "500.wav").read_bytes()
    soundfile.write(manifest.root / "500.wav", np.zeros(500), 16000)
    (manifest.root / "800.wav").rename(manifest.root / "away")
    outcome, target = _run(manifest)
    assert set(outcome.failed) == {"500.wav", "800.wav"} and not outcome.joined
    assert "500.wav is silent" in outcome.failed["500.wav"]
    assert "800.wav does not exist" in outcome.failed["800.wav"]
    assert not target.exists() and not target.with_name("units.json").exists()

    (manifest.root / "500.wav").write_bytes(good)
    (manifest.root / "away").rename(manifest.root / "800.wav")
    encoder = LengthEncoder()
    outcome, target = _run(manifest, encoder)
    assert (outcome.reused, encoder.encoded, outcome.failed) == (5, 2, {})
    assert target.read_text() == EXPECTED


def test_a_recording_of_another_length_than_the_manifest_says_is_named(manifest):
    soundfile.write(manifest.root / "400.wav", np.linspace(-0.5, 0.5, 399), 16000)
    outcome, _ = _run(manifest)
    assert outcome.failed == {
        "400.wav": "found 399 samples, the manifest says 400; run `resynth manifest` again"
    }
