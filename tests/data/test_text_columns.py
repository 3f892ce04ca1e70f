"""Files of a million rows: the same values as by words and lines, in arrays that workers share."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_resynth.data.manifest import read_manifest, read_names
from fairseq_resynth.data.storage.text_columns import Names, StringArray, parse_integer_lines
from fairseq_resynth.data.units import read_integer_rows

LINES = st.lists(st.lists(st.integers(0, 10**17), min_size=1, max_size=6), min_size=1, max_size=8)


@given(LINES, st.sampled_from([" ", "  ", "\t"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_integers_are_what_words_say(lines, gap, end, last):
    text = end.join(gap.join(map(str, line)) for line in lines) + (end if last else "")
    values, lengths = parse_integer_lines(text.encode())
    assert values.tolist() == [value for line in lines for value in line]
    assert lengths.tolist() == list(map(len, lines))


@pytest.mark.parametrize("text", ["1 2\n\n3\n", "1 -2\n", "1 2.5\n", "1 x\n", "\n", "1\n \n2\n"])
def test_a_line_without_integers_is_noticed(text):
    assert parse_integer_lines(text.encode()) is None


def test_blocks_of_any_size_give_the_same_rows_and_name_the_same_line(tmp_path, monkeypatch):
    rows = [[7] * (1 + row % 5) + [30000 + 1000 * row] for row in range(40)]
    path = tmp_path / "train.units"
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    whole = read_integer_rows(path, 40, "resynth quantize")
    real = read_integer_rows.__globals__["whole_line_blocks"]
    monkeypatch.setitem(
        read_integer_rows.__globals__, "whole_line_blocks", lambda stream: real(stream, 11)
    )
    pieces = read_integer_rows(path, 40, "resynth quantize")
    for found in (whole, pieces):
        assert [row.tolist() for row in found] == rows
        assert found.maximum == 69000
    with path.open("a") as stream:
        stream.write("1 x\n")
    with pytest.raises(ValueError, match=r"train.units:41: expected integers"):
        read_integer_rows(path, 41, "resynth quantize")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_manifests_of_either_line_end(tmp_path, end, last):
    rows = ["a/ä b.flac\t16000", "c\td.wav\t320", "e.flac\t00007"]
    text = end.join([str(tmp_path), *rows]) + (end if last else "")
    (tmp_path / "train.tsv").write_bytes(text.encode())
    manifest = read_manifest(tmp_path / "train.tsv")
    assert list(manifest.paths) == ["a/ä b.flac", "c\td.wav", "e.flac"]
    assert manifest.num_samples.tolist() == [16000, 320, 7]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.flac", r"train.tsv:3: expected `path<TAB>samples`, found 'b.flac'"),
        ("\t16", r"train.tsv:3: expected `path<TAB>samples`"),
        ("b.flac\t1e3", r"train.tsv:3: expected `path<TAB>samples`"),
        ("b.flac\t", r"train.tsv:3: expected `path<TAB>samples`"),
        ("b.flac\t-5", r"train.tsv:3: expected `path<TAB>samples`"),
        ("b.flac\t" + "9" * 19, r"train.tsv:3: expected `path<TAB>samples`"),
        ("", r"train.tsv:3: expected `path<TAB>samples`"),
        ("a.flac\t16", r"train.tsv:3: a.flac is already on line 2"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(tmp_path, row, message):
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.flac\t160\n{row}\nc.flac\t1\n")
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "train.tsv")


def test_a_manifest_of_other_bytes_than_text_is_refused(tmp_path):
    (tmp_path / "train.tsv").write_bytes(f"{tmp_path}\n".encode() + b"a\xff.flac\t160\n")
    with pytest.raises(ValueError, match=r"train.tsv is not UTF-8"):
        read_manifest(tmp_path / "train.tsv")


def test_rows_are_kept_in_arrays(tmp_path):
    rows = 20_000
    body = "".join(f"speaker{row % 7}/utterance_{row:06d}.flac\t{row}\n" for row in range(rows))
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\n{body}")
    (tmp_path / "train.speaker").write_text("".join(f"s{row % 7}\n" for row in range(rows)))
    tracemalloc.start()
    manifest = read_manifest(tmp_path / "train.tsv")
    names = read_names(tmp_path / "train.speaker", rows)
    kept, _ = tracemalloc.get_traced_memory()
    blocks = len(tracemalloc.take_snapshot().traces)
    tracemalloc.stop()
    assert kept < len(body) + rows * (3 * 8 + 4) + 100_000
    assert blocks < 1000
    assert manifest.paths[rows - 1] == "speaker0/utterance_019999.flac" and names[9] == "s2"


def test_names_and_the_rows_of_each():
    names = Names(["b", "a", "b", "c", "a"])
    assert list(names) == ["b", "a", "b", "c", "a"] and names.table == ["a", "b", "c"]
    assert {name: rows.tolist() for name, rows in names.grouped().items()} == {
        "a": [1, 4],
        "b": [0, 2],
        "c": [3],
    }


def test_strings_by_index():
    strings = StringArray.of(["a", "", "ß"])
    assert list(strings) == ["a", "", "ß"] and strings[-1] == "ß"
    with pytest.raises(IndexError):
        strings[3]
    assert strings.first_repeat() is None
    assert StringArray.of(["a", "b", "a", "b"]).first_repeat() == (0, 2)
    assert np.array_equal(StringArray.of([])._ends, [])
