"""Listening tests: the page in a real browser, and what its results mean."""

import json
import shutil
import time

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.evaluation.listening import (
    collect_results,
    pigeonhole_interval,
    read_results,
)

# Answers a whole test as a listener would, by keys alone.
LISTEN = """
const done = arguments[arguments.length - 1];
const [plays, answer] = arguments;
const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const wait = (test, then) => (test() ? then() : setTimeout(() => wait(test, then), 15));
const next = document.getElementById("next");
function question() {
  if (next.hidden) return done("finished");
  const before = document.getElementById("progress").textContent;
  const left = [...plays];
  (function playNext() {
    if (left.length) {
      const count = document.querySelectorAll(".played").length;
      press(left.shift());
      return wait(() => document.querySelectorAll(".played").length > count, playNext);
    }
    for (const slider of document.querySelectorAll("input[type=range]")) {
      slider.value = 70;
      slider.dispatchEvent(new Event("input"));
    }
    if (answer) press(answer);
    press("Enter");
    wait(() => document.getElementById("progress").textContent !== before, question);
  })();
}
question();
"""


@pytest.fixture
def systems(tmp_path):
    """Two systems and recordings: three utterances of 0.1 s, each at its own loudness and pitch."""
    for index, system in enumerate(("good", "bad", "real")):
        for number in range(3):
            wav = 0.05 * (index + 1) * np.sin(np.arange(1600) * (0.1 + 0.02 * number))
            path = tmp_path / system / f"u{number}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, wav, 16000)
    return tmp_path


def make(systems, kind, *more):
    places = [str(systems / name) for name in ("good", "bad")]
    out = systems / f"test-{kind}"
    reference = ["--reference", str(systems / "real")]
    status = main(
        ["listening-test", "--systems", *places, *reference, "--kind", kind]
        + ["--outdir", str(out), *more]
    )
    assert status == 0
    return out, read_json(out / "key.json")


def listen(driver, folder, plays, answer=""):
    assert driver.execute_async_script(LISTEN, plays, answer) == "finished"
    link = driver.find_element("css selector", "#download")
    path = folder / "downloads" / link.get_attribute("download")
    behavior = {"behavior": "allow", "downloadPath": str(path.parent)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    link.click()
    for _ in range(100):
        if path.is_file() and path.stat().st_size:
            break
        time.sleep(0.05)
    result = read_json(path)
    assert path.name == f"{result['kind']}-{result['session'][:8]}.json"
    return result


def collect(folder, results, capsys, *more):
    paths = []
    for index, result in enumerate(results):
        paths.append(folder / f"result{index}.json")
        write_json(paths[-1], result)
    status = main(["listening-test", "--outdir", str(folder), "--collect", *map(str, paths), *more])
    return status, capsys.readouterr()


def test_mos_from_page_to_means(systems, open_page, capsys):
    folder, key = make(systems, "mos", "--number", "2")
    assert sorted(entry["system"] for entry in key["stimuli"].values()) == sorted(
        ["good", "bad", "reference"] * 2
    )
    page = (folder / "index.html").read_text()
    assert "good" not in page.replace("4 good", "") and "u1" not in page  # blind
    levels = [np.sqrt(np.mean(soundfile.read(p)[0] ** 2)) for p in (folder / "audio").iterdir()]
    assert len(levels) == 6 and np.ptp(20 * np.log10(levels)) < 0.1
    driver = open_page(folder / "index.html")
    driver.find_element("css selector", "#listener").send_keys("A. Tester")
    result = listen(driver, folder, [" "], "4")
    assert result["listener"] == "A. Tester" and len(result["answers"]) == 6
    assert {answer["stimulus"] for answer in result["answers"]} == set(key["stimuli"])
    status, printed = collect(folder, [result], capsys)
    assert status == 0 and "good: 4.00 [4.00, 4.00]  n=2" in printed.out


def test_an_answer_needs_listening_and_survives_a_reload(systems, open_page, play):
    folder, _ = make(systems, "mos", "--number", "1")
    driver = open_page(folder / "index.html")
    button = driver.find_element("css selector", "#next")

    def press(key):
        event = f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})"
        driver.execute_script(f"document.body.dispatchEvent({event})")

    press("5")
    press("Enter")
    assert not button.is_enabled()  # nothing was played
    assert driver.find_element("css selector", "#progress").text == "0 of 3 done"
    press(" ")
    while not driver.find_elements("css selector", ".played"):
        time.sleep(0.02)
    press("Enter")
    assert driver.find_element("css selector", "#progress").text == "1 of 3 done"
    driver.find_element("css selector", "#listener").send_keys("x5")  # no rating while typing
    assert not driver.find_elements("css selector", "button[aria-pressed=true]")
    driver.refresh()
    assert driver.find_element("css selector", "#listener").get_attribute("value") == "x5"
    assert driver.find_element("css selector", "#progress").text == "1 of 3 done"


def test_mushra_from_page_to_means(systems, open_page, capsys):
    folder, key = make(systems, "mushra")
    assert len(key["trials"]) == 3 and all(len(trial["stimuli"]) == 4 for trial in key["trials"])
    anchors = [name for name, entry in key["stimuli"].items() if entry["system"] == "anchor"]
    assert len(anchors) == 3
    driver = open_page(folder / "index.html")
    result = listen(driver, folder, ["r", "a", "b", "c", "d"])
    assert [answer["value"] for answer in result["answers"]] == [70] * 12
    status, printed = collect(folder, [result], capsys)
    assert (
        status == 2 and "no answers are left: all 1 listeners were dropped" in printed.err
    )  # who rates the hidden reference 70 is dropped
    for answer in result["answers"]:
        if key["stimuli"][answer["stimulus"]]["system"] == "reference":
            answer["value"] = 100
    status, printed = collect(folder, [result], capsys)
    assert status == 0 and "reference: 100.00" in printed.out and "bad: 70.00" in printed.out


def test_abx_from_page_to_shares(systems, open_page, capsys):
    folder, key = make(systems, "abx")
    assert len(key["trials"]) == 9  # three pairs of three systems, three utterances
    driver = open_page(folder / "index.html")
    result = listen(driver, folder, ["a", "b", "x"], "1")
    assert {answer["value"] for answer in result["answers"]} <= {0, 1}
    status, printed = collect(folder, [result], capsys, "--json")
    outcome = json.loads(printed.out.splitlines()[-1])
    assert outcome == read_json(folder / "outcome.json")
    assert sum(figure["count"] for figure in outcome["systems"].values()) == 9
    assert set(outcome["systems"]) == {"good | bad", "good | reference", "bad | reference"}


def test_the_anchor_is_low_passed(systems):
    rng = np.random.default_rng(0)
    for path in (systems / "real").iterdir():
        soundfile.write(path, rng.normal(size=16000) * 0.1, 16000)
    folder, key = make(systems, "mushra", "--keep-level")
    for name, entry in key["stimuli"].items():
        spectrum = np.abs(np.fft.rfft(soundfile.read(folder / "audio" / f"{name}.wav")[0]))
        share = (spectrum[4000:] ** 2).sum() / (spectrum**2).sum()  # over 4 kHz
        if entry["system"] == "anchor":
            assert share < 0.01
        if entry["system"] == "reference":
            assert share > 0.4


def answers(key, values):
    """Answers in which each system gets a value."""
    return [
        {"trial": index, "stimulus": stimulus, "value": values[key["stimuli"][stimulus]["system"]]}
        for index, trial in enumerate(key["trials"])
        for stimulus in trial["stimuli"]
    ]


def result_of(key, session, values):
    shared = {"test": key["test"], "kind": key["kind"], "listener": session, "session": session}
    return {**shared, "answers": answers(key, values)}


def test_mushra_screening_and_means(systems):
    _, key = make(systems, "mushra")
    good = result_of(key, "g", {"reference": 98, "good": 80, "bad": 40, "anchor": 10})
    also = result_of(key, "h", {"reference": 94, "good": 60, "bad": 20, "anchor": 0})
    deaf = result_of(key, "d", {"reference": 50, "good": 50, "bad": 50, "anchor": 50})
    outcome = collect_results([good, also, deaf], key)
    assert outcome["dropped"] == ["d"] and outcome["listeners"] == 2
    figure = outcome["systems"]["good"]
    assert figure["mean"] == 70 and (figure["low"], figure["high"]) == (60, 80)
    assert figure["count"] == 6


def test_abx_by_hand(systems):
    _, key = make(systems, "abx")
    trials = [index for index, trial in enumerate(key["trials"])][:8]
    pair = key["trials"][0]["stimuli"]
    entries = [{"trial": 0, "stimulus": pair[0], "value": int(i < 7)} for i in trials]
    result = {"test": key["test"], "session": "s", "listener": "s", "answers": entries}
    figure = collect_results([result], key)["systems"]["good | bad"]
    assert (figure["correct"], figure["count"]) == (7, 8)
    assert figure["p"] == pytest.approx(9 / 256)  # (8 + 1) / 2^8
    # Wilson: (p + z^2/2n +- z sqrt(pq/n + z^2/4n^2)) / (1 + z^2/n)
    z, n, p = 1.959964, 8, 7 / 8
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert figure["low"] == pytest.approx((p + z * z / (2 * n) - half) / (1 + z * z / n), rel=1e-4)


def test_interval_is_wider_when_listeners_differ():
    listeners, utterances = np.repeat(list("abcd"), 10), np.tile(list("0123456789"), 4)
    noise = np.random.default_rng(0).normal(size=40)
    alike = pigeonhole_interval(3 + 0.1 * noise, listeners, utterances)
    offset = np.repeat([-1, -0.3, 0.3, 1], 10)
    apart = pigeonhole_interval(3 + 0.1 * noise + offset, listeners, utterances)
    assert apart["mean"] == pytest.approx(alike["mean"])
    assert apart["high"] - apart["low"] > 3 * (alike["high"] - alike["low"])


def test_results_of_another_test_or_twice_are_refused(systems, tmp_path):
    _, key = make(systems, "mos")
    values = {"reference": 5, "good": 4, "bad": 2}
    write_json(tmp_path / "a.json", result_of(key, "s", values))
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(ValueError, match="b.json: the same session as .*a.json"):
        read_results([tmp_path / "a.json", tmp_path / "b.json"], key)
    write_json(tmp_path / "b.json", {**result_of(key, "t", values), "test": "other"})
    with pytest.raises(ValueError, match="b.json: not of this test"):
        read_results([tmp_path / "b.json"], key)
    write_json(tmp_path / "b.json", result_of(key, "t", {**values, "bad": 9}))
    with pytest.raises(ValueError, match="b.json: answer .*values are 1 to 5"):
        read_results([tmp_path / "b.json"], key)


def test_bad_requests(systems, capsys):
    folder, _ = make(systems, "mos")
    arguments = ["listening-test", "--systems", str(systems / "good"), "--outdir"]
    assert main([*arguments, str(folder)]) == 2
    assert "has a test already" in capsys.readouterr().err
    assert main([*arguments, str(systems / "new"), "--kind", "mushra"]) == 2
    assert "give --reference" in capsys.readouterr().err
    assert main([*arguments, str(systems / "new"), "--kind", "abx"]) == 2
    assert "needs two systems" in capsys.readouterr().err
    (systems / "empty").mkdir()
    soundfile.write(systems / "empty" / "other.wav", np.zeros(100), 16000)
    assert main([*arguments, str(systems / "new"), "--reference", str(systems / "empty")]) == 2
    assert "no utterance is in all" in capsys.readouterr().err
