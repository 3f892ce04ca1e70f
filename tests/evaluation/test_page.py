import struct
import zlib

import numpy as np
import pytest

from fairseq_resynth.evaluation.report.page import write_gallery
from fairseq_resynth.measures.pictures import F0_COLOUR, spectrogram_png


def decode_png(content: bytes) -> np.ndarray:
    """(H, W, 3) of a palette PNG without filters, by the standard; checks each checksum."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        data = content[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", content[at + 8 + length :][:4])[0]
        chunks[kind], at = data, at + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[rows[:, 1:]]


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(int).sum(2)


def test_a_low_tone_is_low_and_a_high_tone_high():
    time = np.arange(16000) / 16000
    rows = []
    for hertz in (200, 6000):
        picture = decode_png(spectrogram_png(np.sin(2 * np.pi * hertz * time)))
        assert picture.shape == (96, 101, 3)
        rows.append(brightness(picture)[:, 50].argmax())
    assert rows[0] > 80 and rows[1] < 20


def test_f0_is_drawn_where_voiced_at_its_height():
    f0 = np.repeat([0.0, 100.0, 0.0, 300.0], 50)
    picture = decode_png(spectrogram_png(np.zeros(16000), f0))
    drawn = (picture == F0_COLOUR).all(2)
    assert not drawn[:, :24].any() and not drawn[:, 52:74].any()
    low, high = np.flatnonzero(drawn[:, 40])[0], np.flatnonzero(drawn[:, 90])[0]
    # log axis from 50 Hz at the bottom (row 95) to 600 Hz on top
    assert low == pytest.approx(95 * (1 - np.log(2) / np.log(12)), abs=1)
    assert high == pytest.approx(95 * (1 - np.log(6) / np.log(12)), abs=1)


def test_silence_is_black_and_nothing_is_refused():
    assert decode_png(spectrogram_png(np.zeros(8000))).max() <= 4
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        spectrogram_png(np.zeros(0))


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
