"""The reader of unit text: every format by its content, and errors that name the line."""

import time
from collections import Counter

import pytest

from fairseq_resynth.data.streams import read_utterances
from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file
from fairseq_resynth.data.units import parse_line, read_integer_rows

LOG = "S-0\t1 2\nW-0\t0.1\tseconds\nH-0\t-1.5\t1 2\nD-0\t-1.5\t1 2\nH-0\t-1.7\t4 5\nH-1\t-2.0\t7\n"


@pytest.mark.parametrize(
    "text,expected",
    [
        ("1 1 2\n3\n", [("line_1", [1, 1, 2]), ("line_2", [3])]),
        ("a/b.wav|1 2\nc|d|3\n", [("a/b.wav", [1, 2]), ("c|d", [3])]),
        ("a/b\t1,2\nc\t3\n", [("a/b", [1, 2]), ("c", [3])]),
        ("17\t1,2\n", [("17", [1, 2])]),
        ("{'audio': 'x/a.flac', 'hubert': '1 2'}\n", [("x/a", [1, 2])]),
        ("{'cpc_km100': [1, 2], 'hubert': '3'}\n", [("line_1", [1, 2])]),
        ("{'hubert': '1 2', 'durations': '2 1'}\n", [("line_1", [1, 1, 2])]),
        (LOG, [("0__0", [1, 2]), ("0__1", [4, 5]), ("1__0", [7])]),
    ],
)
@pytest.mark.parametrize("name", ["units.txt", "train.units", "log"])
def test_formats_are_recognized_by_content(text, expected, name, tmp_path):
    (tmp_path / name).write_text(text)
    rows = read_unit_file(tmp_path / name)
    assert [(row.label, row.units.tolist()) for row in rows] == expected
    assert [
        (row.label, row.units.tolist()) for row in read_generated_units(tmp_path / name).rows
    ] == (expected)


def test_what_a_dict_line_says(tmp_path):
    (tmp_path / "in.txt").write_text(
        "{'audio': 'a.wav', 'units': '1 2', 'f0': '3 4', 'spk': 7, 'style': 'calm'}"
    )
    (row,) = read_unit_file(tmp_path / "in.txt")
    assert (row.audio, row.speaker, row.f0.tolist()) == ("a.wav", "7", [3, 4])
    assert row.tokens == {"style": "calm"}


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "in.txt is empty"),
        ("1 2\n\n3\n", "in.txt:2: expected units, found none on the line"),
        ("a|\n", "in.txt:1: expected units, found none on the line"),
        ("1 2\n1 x 2\n", "in.txt:2: expected integers from 0 on, separated by spaces, found 'x'"),
        ("1 -2\n", "in.txt:1: expected integers from 0 on, separated by spaces, found '-2'"),
        ("1_0 2\n", "found '1_0'"),
        ("1 +2\n", "found '\\+2'"),
        ("1 9999999999999999999\n", "found '9999999999999999999'"),
        ("1 </s>\n", "found '</s>'"),
        ("1\t2 3\n", "in.txt:1: 1 may be a unit or a name: separate units by spaces, or write"),
    ],
)
def test_errors_name_the_line_and_what_was_found(text, message, tmp_path):
    (tmp_path / "in.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_unit_file(tmp_path / "in.txt")


def test_missing_files_and_other_bytes(tmp_path):
    with pytest.raises(FileNotFoundError, match="in.txt does not exist"):
        read_unit_file(tmp_path / "in.txt")
    (tmp_path / "in.txt").write_bytes(b"1 2 \xff\n")
    with pytest.raises(ValueError, match="in.txt is not UTF-8 text"):
        read_unit_file(tmp_path / "in.txt")


def test_special_symbols_of_samples_are_left_out_and_counted(tmp_path):
    (tmp_path / "in.txt").write_text("a|1 <unk> 2 </s>\n\nb|</s>\n3 madeupword0001\n")
    found = read_generated_units(tmp_path / "in.txt")
    assert [(row.label, row.units.tolist()) for row in found.rows] == [
        ("a", [1, 2]),
        ("line_4", [3]),
    ]
    assert found.dropped == Counter({"</s>": 2, "<unk>": 1, "madeupword0001": 1})
    assert found.empty == ["b"]


@pytest.mark.parametrize("word", ["x", "-2", "1.5", "1_0", "٣"])
def test_both_readers_refuse_the_same_words_in_the_same_sentence(word, tmp_path):
    path = tmp_path / "train.units"
    path.write_text(f"1 2\n3 {word}\n")
    message = f"train.units:2: expected integers from 0 on, separated by spaces, found '{word}'"
    with pytest.raises(ValueError, match=message):
        read_unit_file(path)
    with pytest.raises(ValueError, match=message):
        read_integer_rows(path, 2, "resynth quantize")


def test_utterances_of_folders_and_files(tmp_path):
    (tmp_path / "train.units").write_text("1 1 2\n3 4\n")
    (tmp_path / "train.f0").write_text("0\n5\n")
    (tmp_path / "valid.units").write_text("6\n")
    found = read_utterances(tmp_path)
    assert [row.name for row in found] == ["train_1", "train_2", "valid_1"]
    assert [row.units.tolist() for row in found] == [[1, 1, 2], [3, 4], [6]]
    assert [row.f0_codes is None for row in found] == [False, False, True]
    (tmp_path / "in.txt").write_text("x/a|1 2\n3\n")
    (tmp_path / "in.f0").write_text("1\n2\n")
    found = read_utterances(tmp_path / "in.txt")
    assert [(row.name, row.f0_codes.tolist()) for row in found] == [("a", [1]), ("line_2", [2])]
    with pytest.raises(FileNotFoundError, match="has the splits train, valid, not test"):
        read_utterances(tmp_path, ["test"])


def test_gslms_sample_output(tmp_path):
    (tmp_path / "samples.txt").write_text("prompt_a__0|5 6 7\nprompt_a__1|5 5 1 </s>\n")
    rows = read_generated_units(tmp_path / "samples.txt").rows
    assert [(row.name, row.units.tolist()) for row in rows] == [
        ("prompt_a__0", [5, 6, 7]),
        ("prompt_a__1", [5, 5, 1]),
    ]


@pytest.mark.parametrize(
    "line,message",
    [
        ("{'hubert': '1 2', 'duration': '1 2 3'}", "in.txt:1: 2 units and 3 durations"),
        ("{'hubert': '1 2', 'f0': [1]}", "in.txt:1: 2 units and 1 values of f0"),
        ("{'hubert': '1 2', 'f0': 'a b'}", "in.txt:1: expected a list of numbers for f0"),
        (
            "{'hubert': '1 2', 'f0': __import__('os').getcwd()}",
            "in.txt:1: expected {'audio': path, …} of plain values",
        ),
        ("{'phone': '1'}", "in.txt:1: expected one of the keys .*, found phone"),
        ("{'hubert': '1 2', 'f0': 3}", "in.txt:1: expected a list of numbers for f0"),
        ("{'hubert': 12}", "in.txt:1: expected a list of integers, found 12"),
        ("{'hubert': [1.5]}", "in.txt:1: expected integers from 0 on, .* found '1.5'"),
        ("{'audio': 3, 'hubert': '1'}", "in.txt:1: expected a path under 'audio', found 3"),
        ("{1, 2}", "in.txt:1: expected {'audio': path"),
    ],
)
def test_wrong_dict_lines(line, message, tmp_path):
    (tmp_path / "in.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_unit_file(tmp_path / "in.txt")


def test_a_long_word_takes_no_time():
    """A line of 30,000 letters took ten seconds, one of 100,000 minutes."""
    started = time.process_time()
    with pytest.raises(ValueError, match="here: "):
        parse_line("x" * 30_000, "here", 1)
    assert time.process_time() - started < 1


def test_keys_with_line_separators_break_no_message():
    with pytest.raises(ValueError, match="expected one of the keys") as raised:
        parse_line('{"a\\u2028b": "1 2"}', "here", 1)
    assert len(str(raised.value).splitlines()) == 1
