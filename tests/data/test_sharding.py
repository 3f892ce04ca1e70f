"""Parts: shares cover the rows once, stale ones are refused, the last one joins."""

import argparse
import importlib
import json

import numpy as np
import pytest
import soundfile
from small_corpus import write_data

from fairseq_resynth.cli.main import VERBS
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.pitch.extraction import METHODS, F0Options
from fairseq_resynth.data.storage.shards import (
    Shard,
    close_part,
    find_parts,
    is_closed,
    join_parts,
    missing_parts,
    open_part,
    parse_shard,
    part_path,
    rows_hash,
    whole_lines,
)
from fairseq_resynth.preparation.f0 import build_f0
from fairseq_resynth.preparation.speakers import build_speaker_vectors

KEY = {"rows": "abc", "kmeans": "1"}


def write_part(target, index, count, text, key=KEY, beside=None):
    part = open_part(target, Shard(index, count), key)
    part.write_text(text)
    close_part(target, Shard(index, count), key, beside)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shares_cover_all_rows_once_and_evenly(count):
    shares = [Shard(index, count).rows(23) for index in range(1, count + 1)]
    assert [row for share in shares for row in share] == list(range(23))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "2-of-4", "-1/4", "a/b", ""])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"expected I/N with I from 1 to N"):
        parse_shard(text)


def test_parts_join_in_order_whoever_finishes_last(tmp_path):
    target = tmp_path / "train.units"
    for index in (3, 1):
        write_part(target, index, 3, f"{index}\n", beside={"units.json": {"k": 5}})
        assert not join_parts(target, 3, KEY)
    assert missing_parts(target, 3, KEY) == [2]
    write_part(target, 2, 3, "2\n")
    assert join_parts(target, 3, KEY, header=b"head\n")
    assert target.read_text() == "head\n1\n2\n3\n"
    assert json.loads((tmp_path / "units.json").read_text()) == {"k": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.units", "units.json"]


def test_a_part_of_other_rows_is_not_joined_and_is_emptied_when_opened(tmp_path):
    target = tmp_path / "train.units"
    write_part(target, 1, 2, "old\n", {**KEY, "rows": "other"})
    write_part(target, 2, 2, "new\n")
    assert not join_parts(target, 2, KEY)
    with pytest.raises(ValueError, match=r"made differently \(rows\)"):
        join_parts(target, 2)
    assert open_part(target, Shard(1, 2), KEY).read_text() == ""
    assert not is_closed(target, Shard(1, 2), KEY)


def test_reopening_keeps_whole_lines_only(tmp_path):
    part = open_part(tmp_path / "train.units", Shard(1, 2), KEY)
    part.write_text("1 2\n3 4\n5 ")
    assert whole_lines(open_part(tmp_path / "train.units", Shard(1, 2), KEY)) == 2
    assert part.read_text() == "1 2\n3 4\n"


def test_descriptions_of_the_same_making_gather_their_splits(tmp_path):
    for split in ("train", "valid"):
        beside = {"units.json": {"k": 5, "rows": {split: split[0]}}}
        write_part(tmp_path / f"{split}.units", 1, 1, "1\n", beside=beside)
        assert join_parts(tmp_path / f"{split}.units", 1, KEY)
    units = json.loads((tmp_path / "units.json").read_text())
    assert units == {"k": 5, "rows": {"train": "t", "valid": "v"}}
    write_part(
        tmp_path / "test.units", 1, 1, "1\n", beside={"units.json": {"k": 6, "rows": {"test": "t"}}}
    )
    join_parts(tmp_path / "test.units", 1, KEY)
    assert json.loads((tmp_path / "units.json").read_text()) == {"k": 6, "rows": {"test": "t"}}


def test_finding_parts_refuses_two_ways_of_sharding(tmp_path):
    write_part(tmp_path / "train.units", 1, 2, "1\n")
    assert find_parts(tmp_path) == {tmp_path / "train.units": 2}
    write_part(tmp_path / "train.units", 1, 3, "1\n")
    with pytest.raises(ValueError, match="parts of 2 and of 3 shards"):
        find_parts(tmp_path)


def test_the_hash_follows_rows_and_lengths_but_not_the_root(tmp_path):
    def hashed(root, paths, samples):
        return rows_hash(
            Manifest(tmp_path / "train.tsv", tmp_path / root, paths, np.array(samples))
        )

    first = hashed("a", ["x.flac", "y.flac"], [1, 2])
    assert hashed("b", ["x.flac", "y.flac"], [1, 2]) == first
    assert hashed("a", ["y.flac", "x.flac"], [1, 2]) != first
    assert hashed("a", ["x.flac", "y.flac"], [1, 3]) != first


def test_names_of_parts(tmp_path):
    assert part_path(tmp_path / "train.units", parse_shard("2/4")).name == "train.units.2-of-4"


# Every verb: shards, in any order, leave the bytes of one run. `quantize` has its test in test_quantize.py,
# `preprocess` in test_preprocess.py, `quantize-f0` in tests/cli/test_preparation.py, `pack` in test_pack.py.
SHARDED_VERBS = {"f0", "pack", "preprocess", "quantize", "quantize-f0", "speakers"}


def test_every_verb_with_shards_is_known_here():
    found = set()
    for verb in VERBS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"fairseq_resynth.cli.{verb.replace('-', '_')}").add_arguments(
            parser
        )
        if "--shard" in parser.format_help():
            found.add(verb)
    assert found == SHARDED_VERBS


def embed(path):
    """A vector of a file's own, in place of an encoder's."""
    vector = np.resize(np.fft.rfft(soundfile.read(path)[0]).real, 8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def build_vectors(data, shard):
    description = {"encoder": "test", "encoder_hash": "1", "speaker_dim": 8}
    return build_speaker_vectors(data, "train", description, embed, shard)


def f0_by(method):
    return lambda data, shard: build_f0(data, "train", F0Options(method), shard, 1, True)


BUILDERS = {
    "speakers": (build_vectors, "train.speaker_vectors.npy"),
    **{f"f0 {method}": (f0_by(method), "f0/train.npy") for method in METHODS},
}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_four_shards_leave_the_bytes_of_one_run(tmp_path, name):
    build, made = BUILDERS[name]
    data = write_data(tmp_path / "data", {"train": [4800, 8000, 5600, 6400, 7200, 4000]})
    assert build(data, Shard()).joined
    target = data / made
    expected = target.read_bytes(), target.with_suffix(".json").read_bytes()
    assert any(expected[0][200:])  # behind the array's header
    target.unlink()
    assert not any(build(data, Shard(index, 4)).joined for index in (4, 2, 1))
    assert not target.exists()
    assert build(data, Shard(3, 4)).joined
    assert (target.read_bytes(), target.with_suffix(".json").read_bytes()) == expected
    assert not find_parts(target.parent)
