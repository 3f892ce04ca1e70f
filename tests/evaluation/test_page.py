import numpy as np
import pytest

from fairseq_resynth.evaluation.report.page import write_gallery


def test_gallery_plays_in_a_browser(open_page, play, wavs, tmp_path):
    rows = [
        ("<b>&one", {"real": wavs / "ann/one.wav", "made": wavs / "ann/two.wav"}),
        ("two", {"real": wavs / "bob/one.wav"}),
    ]
    page = tmp_path / "sub dir" / "index.html"
    write_gallery(page, "A & B", rows, "first line\nsecond", f0_of=lambda wav, rate: np.full(9, 99))
    driver = open_page(page)
    assert driver.title == "A & B"
    players = driver.find_elements("css selector", "audio")
    assert len(players) == 3
    assert play(players[0]) == "played"
    assert play(players[1]) == "played"
    assert driver.execute_script("return arguments[0].paused", players[0])
    assert driver.find_element("css selector", "tbody th").text == "<b>&one"
    widths = driver.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    assert len(widths) == 3 and min(widths) > 100


def test_gallery_fits_a_phone(open_page, wavs, tmp_path):
    write_gallery(tmp_path / "p.html", "p", [("one", {c: wavs / "ann/one.wav" for c in "abcd"})])
    driver = open_page(tmp_path / "p.html", width=500)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_embedded_gallery_stands_alone(open_page, play, wavs, tmp_path):
    write_gallery(tmp_path / "p.html", "p", [("one", {"a": wavs / "ann/one.wav"})], embed=True)
    assert str(wavs) not in (tmp_path / "p.html").read_text()
    assert play(open_page(tmp_path / "p.html").find_element("css selector", "audio")) == "played"


def test_bad_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write_gallery(tmp_path / "p.html", "p", [])
    with pytest.raises(FileNotFoundError, match="missing.wav"):
        write_gallery(tmp_path / "p.html", "p", [("one", {"a": tmp_path / "missing.wav"})])
    assert not (tmp_path / "p.html").exists()
