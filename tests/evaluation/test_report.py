"""The report in a real browser."""

import math
import shutil

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.evaluation.metrics.metric import Column
from fairseq_resynth.evaluation.report import plots
from fairseq_resynth.evaluation.report.tables import number, speaker_confusion


@pytest.fixture(scope="module")
def report(wavs, tmp_path_factory):
    """A report on two systems, one with bits, an unreadable file and a name that looks like HTML."""
    root = tmp_path_factory.mktemp("report")
    for system, amount in (("good", 0.001), ("bad", 0.02)):
        given = {}
        for path in wavs.rglob("*.wav"):
            wav, rate = soundfile.read(path)
            name = path.relative_to(wavs)
            target = root / system / name
            target.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(1).normal(size=len(wav))
            soundfile.write(target, wav + amount * noise, rate)
            bits = 400 if system == "bad" else 9000
            figures = {"bits_per_second": bits + len(name.stem), "given_seconds": len(wav) / rate}
            given[name.with_suffix("").as_posix()] = figures
        write_json(root / system / "given.json", given)
    (root / "reference").mkdir()
    shutil.copytree(wavs, root / "reference", dirs_exist_ok=True)
    for place in ("reference", "good"):
        shutil.copy(wavs / "ann/one.wav", root / place / "ann" / "<script>alert(1)<.wav")
    (root / "bad/ann/two.wav").write_bytes(b"not audio")
    status = main(
        ["evaluate", "--generated", str(root / "good"), str(root / "bad")]
        + ["--reference", str(root / "reference"), "--metrics", "level,f0,stft,mel,rate,units"]
        + ["--f0-method", "dio", "--workers", "1", "--examples", "2", "--outdir", str(root / "out")]
    )
    assert status == 1  # the unreadable file
    return root / "out"


def cells(driver, column):
    rows = driver.find_elements("css selector", "#rows tbody tr")
    return [row.find_elements("css selector", "td")[column].text for row in rows]


def test_loads_without_errors_and_says_what_is_missing(open_page, report):
    driver = open_page(report / "index.html")
    text = driver.find_element("css selector", "main").text
    assert (
        "1 utterances not measured, or only in part" in text
        and "ann/two.wav is not readable" in text
    )
    assert "units: needs the unit encoder" in text
    assert "bad: 1 reference files without a partner" in text
    summary = driver.find_element("css selector", "#summary")
    assert [cell.text for cell in summary.find_elements("css selector", "tbody th")] == [
        "reference",
        "good",
        "bad",
    ]
    assert "13.09" in driver.find_element("css selector", "#paper").text


def test_no_network_and_no_other_files(report):
    page = (report / "index.html").read_text()
    outside = [part for part in page.split('src="')[1:] if not part.startswith("data:")]
    assert outside == [] and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_players_play(open_page, play, report):
    driver = open_page(report / "index.html")
    players = driver.find_elements("css selector", ".example audio")
    assert len(players) >= 8
    assert play(players[0]) == "played" and play(players[1]) == "played"
    assert driver.execute_script("return arguments[0].paused", players[0])


def test_sorting_sorts(open_page, report):
    driver = open_page(report / "index.html")
    heads = driver.find_elements("css selector", "#rows thead button")
    labels = [head.text.strip(" ▲▼") for head in heads]
    column = labels.index("mel L1")
    heads[column].click()
    values = cells(driver, column)
    assert len(values) == 12 - 1  # three systems of four utterances, bad lacks one
    known = [float(value) for value in values if value != "–"]
    assert known == sorted(known) and known[0] < known[-1]
    assert values[len(known) :] == ["–"] * 5  # recordings and the unreadable one stay last
    heads[column].send_keys("\n")  # the keyboard does the same as the mouse
    values = cells(driver, column)
    assert [float(v) for v in values[: len(known)]] == known[::-1]
    assert values[len(known) :] == ["–"] * 5
    state = heads[column].find_element("xpath", "..").get_attribute("aria-sort")
    assert state == "descending"
    heads[0].click()
    assert cells(driver, 0) == sorted(cells(driver, 0), key=str.lower)


def test_filter(open_page, report):
    driver = open_page(report / "index.html")
    driver.find_element("css selector", "#filter").send_keys("bob/one good")
    assert cells(driver, 0) == ["bob/one"] and cells(driver, 1) == ["good"]
    assert driver.find_element("css selector", "#shown").text == "1 of 1 rows"


def test_names_are_text(open_page, report):
    driver = open_page(report / "index.html")
    assert "ann/<script>alert(1)<" in cells(driver, 0)


def test_everything_can_be_reached_by_keyboard(open_page, report):
    driver = open_page(report / "index.html")
    reached = driver.execute_script(
        "return [...document.querySelectorAll('button, input, summary, audio, .scroll')]"
        ".filter((e) => !e.hidden).every((e) => e.tabIndex >= 0)"
    )
    assert reached


def test_phone(open_page, report):
    driver = open_page(report / "index.html", width=500)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_screenshot_is_no_blank_page(open_page, report, tmp_path):
    driver = open_page(report / "index.html")
    assert driver.save_screenshot(str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 30000
    drawn = driver.find_elements("css selector", "svg[aria-label*='bit/s']")
    assert len(drawn) == 1  # FFE against rate
    assert "400" in (report / "index.html").read_text()


def test_linked_audio_and_ranking(open_page, play, report, tmp_path):
    options = ["--audio", "link", "--rank-by", "mel_l1", "--examples", "1"]
    assert main(["report", str(report), "--outdir", str(tmp_path / "again"), *options]) == 0
    assert (tmp_path / "again/index.html").stat().st_size < 400_000
    driver = open_page(tmp_path / "again/index.html")
    titles = [title.text for title in driver.find_elements("css selector", "h3")]
    assert "Best 1 of good by mel L1" in titles and "Worst 1 of good by mel L1" in titles
    assert play(driver.find_element("css selector", ".example audio")) == "played"
    best = driver.find_element("css selector", ".example h4").text
    rows = [row for row in read_json(report / "rows.json") if row["system"] == "good"]
    # the name that is tried first among those with equal figures is the alphabetical one
    assert (
        best.split(" mel L1")[0] == min(rows, key=lambda row: (row["mel_l1"], row["name"]))["name"]
    )


def test_histogram_counts_by_hand():
    details = {
        "one": {"f0_reference": [0, 100, 100, 0, 200], "f0_generated": [0, 100, 0, 90, 399, 80]}
    }
    pitch, voicing = plots.f0_histogram(details)
    assert voicing.tolist() == [[1, 1], [1, 2]]
    assert pitch.sum() == 2
    at = [int(np.searchsorted(plots.F0_EDGES, hertz, "right")) - 1 for hertz in (100, 200, 399)]
    assert pitch[at[0], at[0]] == 1 and pitch[at[1], at[2]] == 1


def test_confusion_names_the_most_alike():
    details = {
        "1": {"speaker_scores": {"a": 0.9, "b": 0.1}},
        "2": {"speaker_scores": {"a": 0.8, "b": 0.3}},
    }
    table = speaker_confusion(details, {"1": "a", "2": "b"})
    assert table.count(">1<") == 2 and "target" in table
    assert speaker_confusion({}, {}) == ""


def test_numbers_are_shown_in_per_cent():
    column = Column("wer", "WER %", digits=1, scale=100)
    assert number(0.1234, column) == "12.3"
    assert number(math.nan, column) == number(None, column) == "–"


def test_ticks_within_a_decade():
    plot = plots.scatter_plot({"a": (2400, 1.0), "b": (11000, 2.0)}, "bits", "PESQ")
    assert all(f">{tick}<" in plot for tick in ("2,000", "5,000", "10,000", "20,000"))
    assert ">1,000<" not in plot and ">50,000<" not in plot


def test_plots_are_light_and_say_what_they_show():
    f0 = [0, 0, *np.linspace(90, 200, 200), 0, 0]
    tracks = {"reference": f0, "<good>": f0[1:], "silent": [0] * 200}
    plot = plots.tracking_plot(tracks, "F0 of <one>")
    assert 'role="img" aria-label="F0 of &lt;one&gt;"' in plot and len(plot) < 20_000
    assert all(f">{text}<" in plot for text in ("reference", "&lt;good&gt;", "100 Hz", "1 s"))
    counts, _ = plots.f0_histogram({"one": {"f0_reference": f0, "f0_generated": f0}})
    assert 'aria-label="F0 of x"' in plots.histogram_plot(counts, "F0 of x")
    for drawn in (plot, plots.histogram_plot(counts, "F0 of x")):
        assert "<style" not in drawn and "http:" not in drawn and 'id="axes_1"' not in drawn


def test_a_single_voiced_frame_is_drawn():
    line = plots.tracking_plot({"x": [0, 0, 0, 0]}, "F0")
    assert len(plots.tracking_plot({"x": [0, 120, 0, 0]}, "F0")) > len(line)
    assert "svg" in plots.tracking_plot({"x": []}, "F0")
