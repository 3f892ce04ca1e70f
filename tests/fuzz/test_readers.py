"""Every reader under mutations of valid files: it reads them, or says in one line what is wrong."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from kinds import Kind
from kinds_of_answers import ANSWERS
from kinds_of_codec import CODED
from kinds_of_data import AUDIO, DATA
from kinds_of_encoders import ENCODERS
from kinds_of_models import MODELS
from kinds_of_results import LISTS
from kinds_of_runs import RUNS
from kinds_of_units import UNITS
from limits import failure, limited

KINDS = {**AUDIO, **DATA, **UNITS, **LISTS, **MODELS, **ANSWERS, **ENCODERS, **CODED, **RUNS}


def inputs(kind: Kind, valid: bytes, count: int) -> Iterator[bytes]:
    """Nothing, and mutations of valid bytes."""
    rng = Random(count)
    yield b""
    for _ in range(count - 1):
        yield rng.choice(kind.changes)(valid, rng)


def check(name: str, folder: Path, count: int) -> None:
    kind = KINDS[name]
    kind.write(folder)
    (path,) = folder.glob(kind.target)
    for read in kind.readers:
        read(path)  # else all inputs may be refused for another reason
    valid, names = path.read_bytes(), sorted(folder.rglob("*"))
    with limited(folder):
        for number, data in enumerate(inputs(kind, valid, count)):
            path.write_bytes(data)
            for read in kind.readers:
                assert not (wrong := failure(read, path)), (
                    f"{name}, input {number}: {wrong}\n{data[:300]!r}"
                )
            assert sorted(folder.rglob("*")) == names
        path.unlink()
        path.mkdir()
        for read in kind.readers:
            assert not (wrong := failure(read, path)), f"{name}, a folder: {wrong}"
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", KINDS)
def test_mutated_files_are_read_or_refused_in_one_line(name, tmp_path):
    check(name, tmp_path, KINDS[name].count)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_ten_thousand_mutations(name, tmp_path):
    check(name, tmp_path, 10_000)
