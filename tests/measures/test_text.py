import math
import time

import numpy as np
import pytest

from fairseq_resynth.measures.text import edit_distance, error_rates, normalize


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hello,  World!", "hello world"),
        ("Don’t 'quote' it", "don't quote it"),
        ("ÉTÉ — Straße №5", "été strasse no5"),
        ("Привет, мир.", "привет мир"),
        ("… --- '", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


def test_edit_distance_by_hand():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance([1, 2, 3, 4], [2, 3, 4, 5]) == 2


def test_edit_distance_against_the_table():
    """Of random sequences, more than 64 items long, too."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths, items = rng.integers(0, 90, 2), rng.integers(1, 8)
        first, second = (rng.integers(0, items, length).tolist() for length in lengths)
        row = list(range(len(second) + 1))
        for count, item in enumerate(first, 1):
            above, row = row, [count]
            for place, other in enumerate(second):
                row.append(min(row[-1] + 1, above[place + 1] + 1, above[place] + (item != other)))
        assert edit_distance(first, second) == row[-1]


def test_the_edit_distance_of_long_sequences_takes_seconds():
    """The units of ten minutes; those of an hour take 19 processor seconds, by rows of a table 8 minutes."""
    units = np.random.default_rng(0).integers(0, 100, 30_000).tolist()
    start = time.process_time()
    assert edit_distance(units, units[5000:]) == 5000
    assert time.process_time() - start < 5


def test_error_rates_against_jiwer():
    jiwer = pytest.importorskip("jiwer")
    pairs = [
        ("the cat sat on the mat", "the cat sit on mat please"),
        ("one two three", "three two one"),
        ("a", "b c d e"),
        ("abc def", ""),
    ]
    for said, heard in pairs:
        rates = error_rates(said, heard)
        assert rates["wer"] == pytest.approx(jiwer.wer(said, heard))
        assert rates["cer"] == pytest.approx(jiwer.cer(said, heard))
    assert error_rates(*pairs[0])["words"] == 6
    assert error_rates(*pairs[0])["characters"] == 22


def test_empty_transcript_is_undefined():
    rates = error_rates(" -- ", "words out of nothing")
    assert math.isnan(rates["wer"]) and math.isnan(rates["cer"])
    assert rates["words"] == rates["characters"] == 0
