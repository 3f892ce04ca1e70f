"""Splits: near the percentages, every speaker in train, the same whatever the order of the files."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.preparation.manifest import (
    random_splits,
    read_reference,
    reference_splits,
    scan,
    speakers_of,
    write_splits,
)

SPEAKERS = {
    f"{s}/{i}.flac": s for s, n in {"a": 100, "b": 30, "c": 3, "d": 1}.items() for i in range(n)
}


def test_percentages_and_speakers():
    splits = random_splits(SPEAKERS, 10, 5, seed=1)
    assert {split: len(names) for split, names in splits.items()} == {
        "train": 114,
        "valid": 13,
        "test": 7,
    }
    assert sorted(sum(splits.values(), [])) == sorted(SPEAKERS)
    assert {SPEAKERS[name] for name in splits["train"]} == {"a", "b", "c", "d"}
    assert Counter(SPEAKERS[name] for name in splits["valid"])["a"] == 10
    assert all(names == sorted(names) for names in splits.values())


def test_the_order_of_files_does_not_matter_and_the_seed_does():
    shuffled = list(SPEAKERS.items())
    random.Random(0).shuffle(shuffled)
    first = random_splits(SPEAKERS, 10, 5, seed=1)
    assert random_splits(dict(shuffled), 10, 5, seed=1) == first
    assert random_splits(SPEAKERS, 10, 5, seed=2) != first


def test_a_split_that_cannot_be_filled_is_refused():
    lonely = {f"{i}.flac": str(i) for i in range(10)}
    with pytest.raises(
        ValueError, match="test would have 0 of 1 files, since every speaker must keep one"
    ):
        random_splits(lonely, 5, 5, seed=1)
    assert len(random_splits(lonely, 0, 0, seed=1)["train"]) == 10


@pytest.mark.parametrize("valid, test", [(-1, 5), (60, 40), (0, 100)])
def test_percentages_out_of_range(valid, test):
    with pytest.raises(ValueError, match="expected 0 or more, below 100 together"):
        random_splits(SPEAKERS, valid, test, seed=1)


@pytest.mark.parametrize(
    "rule, name, speaker",
    [
        ("single", "x/a_1.flac", "single"),
        ("parent", "x/y/a_1.flac", "y"),
        ("parent", "a_1.flac", "root"),
        ("grandparent", "x/y/a_1.flac", "x"),
        ("grandparent", "y/a_1.flac", "root"),
        ("prefix", "x/p225_001_mic2.flac", "p225"),
        (r"^([^/]+)/", "english/digits/1.flac", "english"),
    ],
)
def test_speaker_rules(rule, name, speaker):
    assert speakers_of([name], "/data/root", rule) == {name: speaker}


@pytest.mark.parametrize(
    "rule, message",
    [
        ("prefix", r"gives no speaker for 1 files:\n  x/plain.flac"),
        (r"^([", "is not a regular expression"),
        (r"^x/", "found 0 groups .* expected one"),
        (r"(\d+)", "gives no speaker for 1 files"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        speakers_of(["x/plain.flac"], "/data/root", rule)


def write_files(root: Path, names):
    for name in names:
        write_audio(root / name, np.zeros(640, dtype=np.float32))


def test_writing_and_an_empty_split_of_an_earlier_run(tmp_path):
    root, data = tmp_path / "audio", tmp_path / "data"
    write_files(root, ["a/1.flac", "a/2.flac", "b/1.flac"])
    lengths = scan(root)
    assert lengths == {"a/1.flac": 640, "a/2.flac": 640, "b/1.flac": 640}
    speakers = speakers_of(lengths, root, "parent")
    write_splits(
        root, data, {"train": ["b/1.flac", "a/1.flac"], "valid": ["a/2.flac"]}, lengths, speakers
    )
    manifest = read_manifest(data / "train.tsv")
    assert list(manifest.paths) == ["a/1.flac", "b/1.flac"] and manifest.root == root
    assert (data / "train.speaker").read_text() == "a\nb\n"
    (data / "train.units").write_text("1\n2\n")
    notes = write_splits(
        root, data, {"train": ["a/1.flac"], "test": ["b/1.flac"]}, lengths, speakers
    )
    assert not (data / "valid.tsv").exists() and not (data / "valid.speaker").exists()
    assert len(notes) == 2
    assert "train.units" in notes[0] and "make them again" in notes[0]
    assert notes[1] == "speakers of test that are not in train: b"


def test_files_that_cannot_be_used_are_all_named(tmp_path):
    write_files(tmp_path, ["good.flac"])
    write_audio(tmp_path / "three.wav", np.zeros(3, dtype=np.float32))
    write_audio(tmp_path / "fast.wav", np.zeros(640, dtype=np.float32), sample_rate=22050)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError) as refusal:
        scan(tmp_path)
    message = str(refusal.value)
    assert message.startswith("3 of 4 files cannot go into a manifest")
    assert "empty.wav is empty" in message
    assert "three.wav: found 3 samples, expected 320" in message
    assert "fast.wav: found 22050 Hz, expected 16000; run `resynth preprocess`" in message


def test_no_audio_and_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no audio file under"):
        scan(tmp_path)
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        scan(tmp_path / "none")


OURS = ["en/hello.flac", "fr/hello.flac", "en/bye.flac", "en/one.flac"]


def lists(tmp_path, **texts):
    for split, text in texts.items():
        (tmp_path / split).write_text(text)
    return {split: tmp_path / split for split in texts}


def test_references_by_path_by_longer_path_and_by_stem(tmp_path):
    row = {"audio": "data/wavs/fr/hello.wav", "hubert": "1 2 3", "duration": 1.5}
    references = lists(
        tmp_path, valid="/elsewhere\nen/hello.wav\t16000\n", test=f"{row}\n{{'audio': 'bye.wav'}}\n"
    )
    assert reference_splits(OURS, references) == {
        "train": ["en/one.flac"],
        "valid": ["en/hello.flac"],
        "test": ["en/bye.flac", "fr/hello.flac"],
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("three.wav\n", "1 files of --ref-test .* are not under the root:\n  three.wav"),
        ("hello.wav\n", "match several:\n  hello.wav: en/hello.flac, fr/hello.flac"),
        ("{'audio': __import__('os')}\n", r"test:1: expected \{'audio': path"),
        (json.dumps({"codes": "1"}) + "\n", r"test:1: expected \{'audio': path"),
        ("{'audio': 3}\n", "expected a path under 'audio', found 3"),
        ("\n", "names no file"),
        ("en/bye.wav\nen/one\n", "1 files are in two splits:\n  en/bye.flac"),
    ],
)
def test_references_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        reference_splits(OURS, lists(tmp_path, train="en/bye.wav\n", test=text))


def test_a_missing_reference(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a list of files"):
        read_reference(tmp_path / "none")
