"""PNMI and purities on counts worked by hand; alignments in three formats; the command line."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.evaluation.unit_quality import (
    Phone,
    aligned_frames,
    frame_phones,
    joint_counts,
    read_alignment,
    unit_quality,
)


def test_units_that_tell_the_phone():
    """Two phones of 4 frames; unit 0 or 1 is the first phone, unit 2 the second, unit 3 unused."""
    found = unit_quality(np.array([[2, 2, 0, 0], [0, 0, 4, 0]]))
    assert found["pnmi"] == pytest.approx(1)  # I = H(phone) = 1 bit
    assert found["phone_purity"] == 1 and found["cluster_purity"] == 6 / 8  # 2 + 4 of 8
    assert found["units_used"] == 3 / 4 and found["frames"] == 8
    assert found["unit_entropy_bits"] == pytest.approx(1.5)  # 1/4, 1/4, 1/2
    assert found["phone_entropy_bits"] == pytest.approx(1)


def test_units_that_tell_nothing():
    found = unit_quality(np.array([[3, 1], [9, 3]]))  # rows proportional: independent
    assert found["pnmi"] == pytest.approx(0, abs=1e-12)
    assert found["phone_purity"] == 12 / 16 and found["cluster_purity"] == 12 / 16


def test_units_that_tell_something():
    """p = [[3, 1], [1, 3]] / 8: I = 1 - h(1/4) with h the binary entropy, H(phone) = 1."""
    found = unit_quality(np.array([[3, 1], [1, 3]]))
    binary = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert found["pnmi"] == pytest.approx(1 - binary)
    assert found["phone_purity"] == found["cluster_purity"] == 6 / 8


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=2, max_size=5))
def test_bounds(rows):
    counts = np.array(rows)
    if (counts.sum(axis=1) > 0).sum() < 2:
        with pytest.raises(ValueError, match="expected two phones or more"):
            unit_quality(counts)
        return
    found = unit_quality(counts)
    assert -1e-9 <= found["pnmi"] <= 1 + 1e-9
    assert 0 < found["phone_purity"] <= 1 and 0 < found["cluster_purity"] <= 1
    assert found["unit_entropy_bits"] <= math.log2(3) + 1e-9


def test_frames_take_the_phone_at_their_middle():
    phones = [Phone(0.0, 0.03, "a"), Phone(0.03, 0.05, "b"), Phone(0.09, 0.2, "c")]
    # middles at 10, 30, 50, 70, 90 ms: an interval holds its start, not its end
    assert frame_phones(phones, 5, 0.02) == ["a", "b", "", "", "c"]


def test_frames_without_a_phone_are_not_counted():
    counts, labels = joint_counts(
        [(np.array([0, 1, 1]), ["a", "", "b"]), (np.array([1]), ["b"])], 2
    )
    assert labels == ["a", "b"] and counts.tolist() == [[1, 0], [0, 2]]


TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.3
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.3
        intervals: size = 2
        intervals [1]:
            xmin = 0.0
            xmax = 0.1
            text = "a"
        intervals [2]:
            xmin = 0.1
            xmax = 0.3
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.3
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 0.3
            text = "say ""a"""
'''


def test_formats(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "u1.TextGrid").write_text(TEXTGRID)
    (tmp_path / "two.tsv").write_text("u2\t0.1\t0.2\tb\nu2\t0\t0.1\ta\n")
    (tmp_path / "three.ctm").write_text(";; comment\nu3 1 5.0 0.25 c 0.9\n")
    assert read_alignment(tmp_path) == {
        "x/u1": [Phone(0, 0.1, "a")],
        "u2": [Phone(0, 0.1, "a"), Phone(0.1, 0.2, "b")],
        "u3": [Phone(5.0, 5.25, "c")],
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "u\t0\t1\ta\nu\t0\t1\n", "a.tsv:2: expected `name<TAB>start"),
        ("a.tsv", "u\t0\tx\ta\n", "a.tsv:1: expected times in seconds"),
        ("a.tsv", "u\t2\t1\ta\n", "a.tsv:1: the interval 2.0 to 1.0 ends before its start"),
        ("a.ctm", "u 1 0\n", "a.ctm:1: expected `name channel"),
        ("a.ctm", "u 1 0 -1 a\n", "a.ctm:1: the interval"),
        ("a.TextGrid", "short form", "a.TextGrid has no interval tier"),
        ("a.txt", "", "a.txt is not an alignment"),
    ],
)
def test_malformed_alignments(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_alignment(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="has no .tsv, .ctm or .TextGrid"):
        (tmp_path / "empty").mkdir()
        read_alignment(tmp_path / "empty")


@pytest.fixture
def data(tmp_path):
    """Two utterances of 4 frames of 20 ms."""
    (tmp_path / "test.tsv").write_text(f"{tmp_path}\nx/u1.wav\t1600\nx/u2.wav\t1600\n")
    (tmp_path / "test.units").write_text("0 0 1 1\n2 2 2 2\n")
    write_json(tmp_path / "units.json", {"unit_hop": 320, "sample_rate": 16000, "num_clusters": 4})
    (tmp_path / "phones.tsv").write_text("u1\t0\t0.08\ta\nx/u2\t0\t0.08\tb\nother\t0\t1\tz\n")
    return tmp_path


def test_the_verb(data, capsys):
    arguments = ["units-quality", str(data), "--alignment", str(data / "phones.tsv")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pnmi"] == pytest.approx(1) and found["cluster_purity"] == 6 / 8
    assert (found["frames"], found["phones"], found["splits"]) == (8, 2, ["test"])
    assert main(arguments) == 0
    assert "PNMI            1.000" in capsys.readouterr().out
    assert main([*arguments, "--ignore", "b"]) == 2
    assert "covers 4 frames and 1 phones" in capsys.readouterr().err
    (data / "test.units").write_text("0 0 1 1\n2 2 2 9\n")
    assert main(arguments) == 2
    assert "test.units has unit 9" in capsys.readouterr().err


def test_the_alignment_is_looked_up_in_linear_time():
    """2000 names: each is compared a few times, not with every other name."""

    class Name(str):
        comparisons = 0

        def __eq__(self, other):
            Name.comparisons += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

        def rsplit(self, *arguments):
            return [Name(part) for part in str.rsplit(self, *arguments)]

    class Rows:
        def __len__(self):
            return 2000

        def name(self, row):
            return Name(f"folder{row}/u{row % 1500}")

    alignment = {f"u{index}": [Phone(0.0, 0.02, "a")] for index in range(1500)}
    units = [np.array([index]) for index in range(2000)]
    found = [int(part[0]) for part, _ in aligned_frames(Rows(), units, alignment, 0.02)]
    # u0 to u499 name two utterances each, so that their alignment belongs to neither
    assert found == list(range(500, 1500))
    assert Name.comparisons < 20 * 2000
