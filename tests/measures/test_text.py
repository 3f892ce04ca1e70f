import math

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
