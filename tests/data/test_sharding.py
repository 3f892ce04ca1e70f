"""Parts: shares cover the rows once, stale ones are refused, the last one joins."""

import json

import numpy as np
import pytest
import soundfile
from small_corpus import write_data

from fairseq_resynth.cli.main import VERBS, parser_of
from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.pitch.extraction import METHODS, F0Options
from fairseq_resynth.data.storage import parts, shards
from fairseq_resynth.data.storage.parts import LinesPart
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import (
    Shard,
    find_parts,
    join_parts,
    missing_parts,
    parse_shard,
    part_path,
)
from fairseq_resynth.preparation.f0 import build_f0
from fairseq_resynth.preparation.merge import merge
from fairseq_resynth.preparation.speakers import build_speaker_vectors

SETTINGS = {"kmeans": "1"}


def make_part(folder, index, count, settings=SETTINGS, rows=6, name="train.units"):
    names, split = [f"{row}.wav" for row in range(rows)], name.partition(".")[0]
    manifest = Manifest(folder / f"{split}.tsv", folder, names, np.full(rows, 320))
    return LinesPart(
        Record(folder),
        name,
        manifest,
        Shard(index, count),
        settings,
        {"units.json": settings},
        False,
    )


def write_part(folder, index, count, *arguments, **more):
    """Writes a part whose lines are the numbers of its rows; returns whether it was joined."""
    with make_part(folder, index, count, *arguments, **more) as part:
        part.append({row: str(row) for row in part.rows})
        return part.close({})


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
    assert not write_part(tmp_path, 3, 3) and not write_part(tmp_path, 1, 3)
    assert missing_parts(target, 3) == [2]
    assert make_part(tmp_path, 2, 3).finished() is None
    assert write_part(tmp_path, 2, 3)
    assert target.read_text() == "0\n1\n2\n3\n4\n5\n"
    assert json.loads((tmp_path / "units.json").read_text()) == SETTINGS
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".made_by", "train.units", "units.json"
    ]  # fmt: skip
    assert make_part(tmp_path, 2, 3).finished().reused == 2
    assert make_part(tmp_path, 1, 1, {"kmeans": "2"}).finished() is None


def test_a_part_of_other_rows_is_not_joined_and_is_emptied_when_opened(tmp_path):
    target = tmp_path / "train.units"
    write_part(tmp_path, 1, 2, rows=5)
    assert not write_part(tmp_path, 2, 2)
    with pytest.raises(ValueError, match=r"made differently \(rows\)"):
        join_parts(Record(tmp_path), "train.units", 2)
    with make_part(tmp_path, 1, 2) as part:
        assert part.keep_lines() == 0
    assert part.path.read_text() == ""
    assert missing_parts(target, 2) == [1]


def test_reopening_keeps_whole_lines_only(tmp_path):
    with make_part(tmp_path, 1, 2) as part:
        part.path.write_text("1 2\n3 4\n5 6 7 8 9 ")
    with make_part(tmp_path, 1, 2) as part:
        assert part.keep_lines() == 2
        part.append({2: "5"})
        part.close({})
    assert part.path.read_text() == "1 2\n3 4\n5\n"
    with make_part(tmp_path, 1, 1) as part:
        part.path.write_text("1\n2\n3\n4\n5\n")
        assert part.keep_lines(block=2) == 4


def test_two_jobs_that_finish_at_once_lose_no_entry(tmp_path, monkeypatch):
    """Splits of one folder, made by two jobs, of which one finishes in the middle of the other's joining."""
    write_json = shards.write_json

    def interrupted(path, value):
        monkeypatch.setattr(shards, "write_json", write_json)
        if path.name == "units.json":
            assert write_part(tmp_path, 1, 1, name="valid.units")
        else:
            monkeypatch.setattr(shards, "write_json", interrupted)
        write_json(path, value)

    monkeypatch.setattr(shards, "write_json", interrupted)
    assert write_part(tmp_path, 1, 1)
    for name in ("train.units", "valid.units"):
        assert make_part(tmp_path, 1, 1, name=name).finished().reused == 6


def test_a_part_that_another_process_joins_meanwhile_is_not_lost(tmp_path, monkeypatch):
    """A second process of the last shard: its file has its name, it is recorded, its parts are removed."""
    find_whole = parts.find_whole

    def late(record, *arguments):
        monkeypatch.setattr(parts, "find_whole", find_whole)
        found = find_whole(record, *arguments)  # before the other process records the file
        assert join(Record(tmp_path), "train.units", 1, part._state["key"])
        return found

    join = parts.join_parts
    monkeypatch.setattr(parts, "find_whole", late)
    monkeypatch.setattr(parts, "join_parts", lambda *arguments: False)
    with make_part(tmp_path, 1, 1) as part:
        part.append({row: str(row) for row in part.rows})
        assert not part.close({})
    assert make_part(tmp_path, 1, 1).finished().reused == 6


def test_a_part_whose_description_another_process_removes_now_is_begun_again(tmp_path, monkeypatch):
    write_part(tmp_path, 1, 2)
    read = shards.read_object

    def removed(path, **shapes):
        path.unlink()
        return read(path, **shapes)

    monkeypatch.setattr(shards, "read_object", removed)
    with make_part(tmp_path, 1, 2) as part:
        assert part.keep_lines() == 0


def test_a_part_that_two_processes_begin_at_once_is_left_to_the_second(tmp_path):
    with make_part(tmp_path, 1, 1) as first:
        first.append({row: str(row) for row in first.rows})
        first.path.unlink()  # as the second process does if it has not found the description yet
        with make_part(tmp_path, 1, 1) as second:
            assert not first.close({})
            second.append({row: str(row) for row in second.rows})
            assert second.close({})
    with make_part(tmp_path, 1, 1, {"kmeans": "2"}) as part:
        part.path.unlink()
        with pytest.raises(FileNotFoundError, match="removed or changed while it was written"):
            part.close({})


def test_finding_parts_refuses_two_ways_of_sharding(tmp_path):
    write_part(tmp_path, 1, 2)
    assert find_parts(tmp_path) == {tmp_path / "train.units": 2}
    write_part(tmp_path, 1, 3)
    with pytest.raises(ValueError, match="parts of 2 and of 3 shards"):
        find_parts(tmp_path)


def test_the_hash_follows_rows_and_lengths_but_not_the_root(tmp_path):
    def hashed(root, paths, samples):
        source = tmp_path / "train.tsv"
        return Manifest(source, tmp_path / root, paths, np.array(samples)).rows_hash()

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
        if "--shard" in parser_of(verb)._option_string_actions:
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
    for row, path in enumerate(sorted((data / "wav").iterdir())):  # SwiftF0 finds no F0 in noise
        time = np.arange(soundfile.info(path).frames) / 16000
        soundfile.write(path, 0.6 * ((120 + 20 * row) * time % 1) - 0.3, 16000)
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


def test_parts_of_speaker_vectors_are_merged_with_their_means(tmp_path):
    data = write_data(tmp_path / "data", {"train": [4800, 8000, 5600, 6400]})
    assert build_vectors(data, Shard()).joined
    whole = (data / "train.speaker_vectors.npy").read_bytes()
    (data / "train.speaker_vectors.npy").unlink()
    build_vectors(data, Shard(1, 2))
    kept = {path.name: path.read_bytes() for path in data.glob("*.1-of-2*")}
    for name in kept:
        (data / name).unlink()
    build_vectors(data, Shard(2, 2))  # as on another machine
    for name, content in kept.items():
        (data / name).write_bytes(content)
    assert merge(data) == (["train.speaker_vectors.npy", "speaker_vectors.json"], {})
    assert (data / "train.speaker_vectors.npy").read_bytes() == whole
    means = json.loads((data / "speaker_vectors.json").read_text())["means"]
    assert set(means) == {"anna", "boris"}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_recording_of_the_same_length_but_other_content_is_read_again(tmp_path, name):
    build, made = BUILDERS[name]
    data = write_data(tmp_path / "data", {"train": [4800, 8000]})
    build(data, Shard())
    assert build(data, Shard()).reused == 2
    before = (data / made).read_bytes()
    tone = sum(np.sin(2 * np.pi * 210 * k * np.arange(8000) / 16000) / k for k in range(1, 15))
    soundfile.write(data / "wav" / "train_1.wav", 0.1 * tone, 16000)
    assert build(data, Shard()).reused == 0
    assert (data / made).read_bytes() != before
