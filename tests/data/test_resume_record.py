"""The record of what made each file: by content, of many writers, whole after any interruption."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fairseq_resynth.data.storage import files, resume
from fairseq_resynth.data.storage.files import atomic_path, file_hash
from fairseq_resynth.data.storage.resume import FOLDER, Record

LONG_AGO = 1_000_000_000


def write(path: Path, text: str, seconds: int = LONG_AGO) -> Path:
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return path


def make(folder, name, key, text="made", **facts):
    (folder / name).write_text(text)
    with Record(folder) as record:
        record.add(name, key, facts)


def test_a_file_is_reused_only_for_what_made_it(tmp_path):
    make(tmp_path, "a.wav", "1", seconds=1.5)
    record = Record(tmp_path)
    assert record.find("a.wav", "1") == {"seconds": 1.5}
    assert record.find("a.wav", "2") is None and record.find("b.wav", "1") is None
    make(tmp_path, "a.wav", "2", "made otherwise")
    assert Record(tmp_path).find("a.wav", "1") is None
    assert Record(tmp_path).find("a.wav", "2") == {}
    (tmp_path / "a.wav").write_text("made by hand")
    assert Record(tmp_path).find("a.wav", "2") is None
    (tmp_path / "a.wav").unlink()
    assert Record(tmp_path).find("a.wav", "2") is None
    make(tmp_path, "a.wav", "1", seconds=1.5)  # as at first: all lines stay true
    assert Record(tmp_path).find("a.wav", "1") == {"seconds": 1.5}
    make(tmp_path, "a.wav", "1", "made again, with other rounding", seconds=1.6)
    assert Record(tmp_path).find("a.wav", "1") == {"seconds": 1.6}


def test_a_copied_folder_is_still_known(tmp_path):
    make(tmp_path, "a.wav", "1")
    os.utime(tmp_path / "a.wav", (LONG_AGO, LONG_AGO))
    assert Record(tmp_path).find("a.wav", "1") == {}


def test_keys_follow_contents_and_not_paths_or_times(tmp_path):
    first, second = write(tmp_path / "a", "one"), write(tmp_path / "b", "one", LONG_AGO + 5)
    record = Record(tmp_path)
    key = record.key({"speaker": "anna"}, first)
    assert record.key({"speaker": "anna"}, second) == key
    assert record.key({"speaker": "boris"}, first) != key
    write(first, "two")  # of the same size, with the same time of modification
    assert record.key({"speaker": "anna"}, first) != key
    assert Record(tmp_path).key({"speaker": "anna"}, first) != key
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        record.key(tmp_path / "none")


@dataclass
class Job:
    units: np.ndarray
    speaker: str | None = None


def test_keys_of_arrays_and_data_classes(tmp_path):
    key, units = Record(tmp_path).key, np.arange(4)
    assert key(Job(units)) == key(Job(units.copy()))
    assert (
        len({key(Job(units)), key(Job(units[::-1])), key(Job(units, "anna")), key(units > 1)}) == 4
    )
    assert key(b"a") != key(b"b") and key(units) != key(units.astype(np.float32))
    with pytest.raises(TypeError, match="Record cannot be a part of a key"):
        key(Record(tmp_path))


def test_unchanged_inputs_are_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_CLOCK", -1e6)
    big, hashed = write(tmp_path / "big", "x" * 1000), []
    monkeypatch.setattr(resume, "file_hash", lambda *path: hashed.append(path) or file_hash(*path))
    for _ in range(3):
        with Record(tmp_path) as record:
            assert record.content(big) == file_hash(big)
    assert len(hashed) == 1
    write(big, "y" * 1000)
    assert Record(tmp_path).content(big) == file_hash(big) and len(hashed) == 2


def test_a_file_that_changed_a_moment_ago_is_hashed_again(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    with Record(tmp_path) as record:
        first = record.content(path)
        path.write_text("two")  # perhaps within the same tick of the file system's clock
        assert record.content(path) != first


def test_a_member_of_an_archive_is_hashed_alone(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"header-one-two")
    record, folder = Record(tmp_path), tmp_path / "a.zip"
    assert record.content(f"{folder}:7:3") == file_hash(write(tmp_path / "one", "one"))
    assert record.content(f"{folder}:7:3") != record.content(f"{folder}:11:3")


def test_two_writers_at_once_lose_no_entry(tmp_path):
    one, two = Record(tmp_path), Record(tmp_path)
    for number in range(5):
        for name, record in (("one", one), ("two", two)):
            (tmp_path / f"{name}{number}").write_text(name)
            record.add(f"{name}{number}", "key")
    found = Record(tmp_path)
    names = [f"{name}{number}" for name in ("one", "two") for number in range(5)]
    assert all(found.find(name, "key") is not None for name in names)


def test_a_killed_writer_loses_at_most_its_last_line(tmp_path):
    make(tmp_path, "a.wav", "1")
    make(tmp_path, "b.wav", "1")
    file = sorted((tmp_path / FOLDER).iterdir())[0]
    with file.open("a") as stream:
        stream.write('{"made": "c.wav", "by')
    assert Record(tmp_path).find("a.wav", "1") == Record(tmp_path).find("b.wav", "1") == {}
    file.write_text("[]\n" + file.read_text())
    with pytest.raises(ValueError, match=r"jsonl:1: damaged, found '\[\]'. Delete the file"):
        Record(tmp_path)


def test_a_file_is_never_without_its_line(tmp_path, monkeypatch):
    def killed(*paths):
        raise KeyboardInterrupt

    facts = {}
    with Record(tmp_path) as record:
        with record.writing("a.wav", "1", facts) as temporary:
            temporary.write_text("made")
            facts["seconds"] = 1.5
        with pytest.raises(RuntimeError), record.writing("b.wav", "1"):
            raise RuntimeError
        monkeypatch.setattr(files.os, "replace", killed)  # between the line and the new name
        with pytest.raises(KeyboardInterrupt), record.writing("a.wav", "2") as temporary:
            temporary.write_text("made otherwise")
    record = Record(tmp_path)
    assert record.find("a.wav", "1") == {"seconds": 1.5}
    assert record.facts("a.wav") == [{"seconds": 1.5}]
    assert record.find("a.wav", "2") is None and record.facts("b.wav") == []


def test_many_old_files_of_a_record_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_MANY_FILES", 3)
    for number in range(6):
        make(tmp_path, f"{number}.wav", "1", number=number)
    assert len(list((tmp_path / FOLDER).iterdir())) == 6
    for file in (tmp_path / FOLDER).iterdir():
        os.utime(file, (LONG_AGO, LONG_AGO))
    make(tmp_path, "6.wav", "1", number=6)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    assert [Record(tmp_path).find(f"{n}.wav", "1")["number"] for n in range(7)] == [*range(7)]


def test_values_without_a_file(tmp_path):
    with Record(tmp_path) as record:
        record.keep("1", {"stoi": 0.9, "notes": ["short"]})
    assert Record(tmp_path).values("1") == {"stoi": 0.9, "notes": ["short"]}
    assert Record(tmp_path).values("2") is None


def test_temporary_names_differ_where_process_ids_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    with atomic_path(tmp_path / "a.wav") as first, atomic_path(tmp_path / "a.wav") as second:
        assert first != second and first.suffix == second.suffix == ".wav"
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.wav").read_text() == "first"
    assert json.dumps(sorted(os.listdir(tmp_path))) == '["a.wav"]'


def test_what_is_open_already_is_written_to_as_it_is(tmp_path):
    """As /dev/stdout is, also where it leads to a file; and a named pipe."""
    with (tmp_path / "a").open("wb") as stream:
        with atomic_path(f"/dev/fd/{stream.fileno()}") as path:
            path.write_bytes(b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    os.mkfifo(tmp_path / "pipe")
    with atomic_path(tmp_path / "pipe") as path:
        assert path == tmp_path / "pipe"
