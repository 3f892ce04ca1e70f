"""What users get wrong: one sentence before anything is measured, or the file named and the rest measured."""

import importlib.metadata
import json
import shutil

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.evaluation.metrics import catalogue
from fairseq_resynth.evaluation.metrics.catalogue import make_metrics
from fairseq_resynth.evaluation.metrics.packages import package_version


@pytest.fixture
def folders(wavs, tmp_path):
    """A folder with `real`, and `made` which is the same."""
    for name in ("real", "made"):
        shutil.copytree(wavs, tmp_path / name)
    return tmp_path


def evaluate(folders, *more, made="made", metrics="level,stft"):
    return main(
        ["evaluate", "--generated", made if "=" in made else str(folders / made), "--reference"]
        + [str(folders / "real"), "--metrics", metrics, "--outdir", str(folders / "report")]
        + ["--workers", "1", "--audio", "none", *map(str, more)]
    )


def refusal(folders, capsys, *more, **rest) -> str:
    """Returns the one line of a refused command, which has measured nothing."""
    capsys.readouterr()
    assert evaluate(folders, *more, **rest) == 2
    assert not (folders / "report" / ".made_by").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    "more,metrics,message",
    [
        ((), ",", "no metric is named; expected names from f0"),
        (("--device", "cuda:99"), "level", "--device cuda:99 cannot be used here"),
        (("--language", "fr"), "wer", "pocketsphinx knows English only"),
        (("--f0-method", "praat"), "f0", "--f0-method: F0 method 'praat' is unknown"),
        (("--recognizer", "ctc:{}/none"), "wer", "none does not exist"),
        (("--speaker-encoder", "onnx:{}/none"), "speaker", "none does not exist"),
        (("--enroll", "{}/real/ann"), "speaker", "expected enrollment files in"),
        (("--bundle", "{}/real"), "level,units", "real/config.json does not exist"),
        (("--baselines", "opus,opus"), "level", "are called opus; name folders with NAME=DIR"),
    ],
)
def test_settings_are_checked_first(folders, capsys, more, metrics, message):
    for name in ("pocketsphinx", "resemblyzer", "transformers"):
        pytest.importorskip(name)
    more = [text.format(folders) for text in more]
    assert message in refusal(folders, capsys, *more, metrics=metrics)


def test_folders_that_are_mistaken(folders, capsys):
    assert "expected NAME=DIR or DIR" in refusal(folders, capsys, made=f"={folders}/made")
    (folders / "file").write_text("x")
    line = refusal(folders, capsys, "--outdir", folders / "file")
    assert "--outdir" in line and "is a file; give a folder" in line
    line = refusal(folders, capsys, "--outdir", folders / "made")
    assert "holds the audio that is compared" in line
    (folders / "made").rename(folders / "rate=0.1")
    assert evaluate(folders, made=str(folders / "rate=0.1")) == 0
    assert "rate=0.1" in read_json(folders / "report/summary.json")


def test_a_baseline_never_replaces_a_folder_of_its_name(folders, capsys):
    line = refusal(folders, capsys, "--baselines", "griffinlim", made=f"griffinlim={folders}/made")
    assert "two systems or baselines are called griffinlim" in line


def test_audio_of_the_report_itself_is_no_reference(folders):
    out = ["--outdir", folders / "real" / "report", "--baselines", "griffinlim"]
    for _ in range(2):
        assert evaluate(folders, *out, metrics="level") == 0
    names = {row["name"] for row in read_json(folders / "real/report/rows.json")}
    assert names == {"ann/one", "ann/two", "bob/one"}


def test_files_beside_the_audio(folders, capsys):
    (folders / "list").write_bytes("ann/one\tcafé\n".encode("latin-1"))
    line = refusal(folders, capsys, "--transcripts", folders / "list")
    assert "list is not UTF-8 text" in line
    (folders / "list").write_bytes(b"\n")
    line = refusal(folders, capsys, "--transcripts", folders / "list")
    assert "list has no transcripts" in line
    for content in ("[1]", '{"ann/one": 3}', '{"ann/one": {"bits_per_second": "many"}}'):
        (folders / "made/given.json").write_text(content)
        assert "given.json: expected {name: {figure: number}}" in refusal(folders, capsys)


def test_a_damaged_cache_is_named(folders, capsys):
    record = folders / "report" / ".made_by" / "a.jsonl"
    record.parent.mkdir(parents=True)
    for content in (b"[1]\n", b"\xff\n", b"nothing\n"):
        record.write_bytes(content)
        assert evaluate(folders) == 2
        assert "a.jsonl:1: damaged" in capsys.readouterr().err


def test_one_bad_file_among_many(folders, capsys):
    soundfile.write(folders / "made/ann/one.wav", np.full(9000, np.nan), 16000, subtype="FLOAT")
    (folders / "made/ann/two.wav").unlink()
    (folders / "made/ann/two.wav").symlink_to(folders / "nowhere.wav")
    assert evaluate(folders) == 1
    printed = capsys.readouterr().out
    assert "ann/one.wav: sample 0 is nan, expected finite numbers" in printed
    assert "ann/two.wav does not exist" in printed
    assert read_json(folders / "report/summary.json")["made"]["all"]["seconds"]["count"] == 1


def test_systems_of_different_utterances_are_told(folders, capsys):
    evaluate(folders, "--outdir", folders / "a", made=f"a={folders}/made")
    (folders / "made/bob/one.wav").unlink()
    evaluate(folders, "--outdir", folders / "b", made=f"b={folders}/made")
    assert "cannot be compared" not in capsys.readouterr().out
    both = [str(folders / "a"), str(folders / "b")]
    assert main(["report", *both, "--outdir", str(folders / "c"), "--audio", "none"]) == 0
    note = "different utterances (a 3, b 2; 2 in common): their means cannot be compared"
    assert note in capsys.readouterr().out and note in (folders / "c/index.html").read_text()


@pytest.mark.parametrize(
    "name,content",
    [
        ("evaluation.json", '{"format": 1}'),
        ("evaluation.json", "[]"),
        ("rows.json", "[{}]"),
        ("summary.json", "{}"),
    ],
)
def test_a_damaged_evaluation_is_named(folders, capsys, name, content):
    evaluate(folders)
    (folders / "report" / name).write_text(content)
    assert main(["report", str(folders / "report"), "--outdir", str(folders / "c")]) == 2
    assert "is a damaged evaluation" in capsys.readouterr().err
    assert main(["report", *[str(folders / "report")] * 2, "--outdir", str(folders / "c")]) == 2
    assert "an evaluation is given twice" in capsys.readouterr().err


def test_versions_are_looked_up_once(folders, monkeypatch):
    """Looking them up for each row and metric took minutes."""
    pytest.importorskip("pesq")
    calls = []
    found = importlib.metadata.packages_distributions()
    package_version.cache_clear()
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: calls.append(1) or found
    )
    assert evaluate(folders, metrics="level,pesq") == 0
    assert len(calls) == 1


def test_a_broken_metric_of_another_package_is_missing(folders, monkeypatch, capsys):
    def load():
        raise ImportError("no module named other")

    class Point:
        name, value, group = "other", "package:Other", catalogue.ENTRY_POINTS

    Point.load = staticmethod(load)
    monkeypatch.setattr(catalogue.importlib.metadata, "entry_points", lambda group: [Point])
    assert evaluate(folders, metrics="level,other") == 0
    printed = capsys.readouterr().out
    assert "not run: other: cannot be loaded from package:Other: no module named other" in printed


def test_audio_that_is_gone_is_told(folders, capsys):
    assert evaluate(folders, metrics="level,stft") == 0
    shutil.rmtree(folders / "made")
    assert main(["report", str(folders / "report"), "--outdir", str(folders / "c")]) == 1
    assert "3 audio files no longer exist, so the page cannot play them" in capsys.readouterr().out


def test_trial_lists(folders, capsys):
    """Ann against herself and Bob against Ann: two trials of the six."""
    pytest.importorskip("resemblyzer")
    trials = folders / "trials"
    trials.write_text("ann/one\tann\nbob/one\tann\n")
    assert evaluate(folders, "--trials", trials, metrics="speaker") == 0
    details = read_json(folders / "report/details.json")["made"]
    assert {name: list(entry["speaker_scores"]) for name, entry in details.items()} == {
        "ann/one": ["ann"], "ann/two": [], "bob/one": ["ann"],
    }  # fmt: skip
    (metric,) = make_metrics("speaker", {})
    rows = [
        {"speaker": "ann", "speaker_scores": {"ann": 0.9}},
        {"speaker": "bob", "speaker_scores": {"ann": 0.2}},
    ]
    assert metric.pooled(rows) == {"eer": 0}
    for content, message in (
        ("ann/one ann\n", "trials:1: expected utterance<TAB>speaker"),
        ("\n", "has no trials"),
        ("ann/one\tann\nann/one\tann\n", "trials:2: the trial 'ann/one"),
        ("ann/one\tzoe\n", "names 1 unknown speakers: zoe; expected names such as ann, bob"),
        ("ann/ten\tann\n", "names 1 unknown utterances: ann/ten"),
    ):
        trials.write_text(content)
        assert evaluate(folders, "--trials", trials, metrics="speaker") == 2
        assert message in capsys.readouterr().err


def listening_test(folders, *more):
    return main(["listening-test", "--outdir", str(folders / "test"), *map(str, more)])


def test_utterances_left_out_of_a_listening_test(folders, capsys):
    (folders / "made/ann/one.wav").unlink()
    places = ["--systems", folders / "made", "--reference", folders / "real"]
    assert listening_test(folders, *places) == 0
    printed = capsys.readouterr().out
    assert "2 utterances: all systems have no more than these in common" in printed
    assert "reference: 1 left out, since not all systems have them: ann/one" in printed
    assert listening_test(folders, *places, "--collect", "x.json") == 2
    assert "not both" in capsys.readouterr().err
    assert listening_test(folders, "--systems", f"anchor={folders}/made") == 2
    assert "cannot be called 'anchor'" in capsys.readouterr().err
    assert listening_test(folders, *places, "--seed", -1) == 2
    assert "--seed -1: expected 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change,message",
    [
        ({"session": None}, "damaged, expected `session`"),
        ({"answers": "abc"}, "damaged, expected `session` and a list"),
        ({"answers": [1]}, "answer 1 is not one of this test"),
        ({"answers": [{"trial": 0, "stimulus": ["x"], "value": 3}]}, "is not one of this test"),
        ({"answers": [{"trial": 99, "stimulus": "0001", "value": 3}]}, "is not one of this test"),
        ({"answers": [{"trial": 0, "stimulus": "0001", "value": float("nan")}]}, "is not one of"),
        ({"answers": [{"trial": 0, "stimulus": "0001", "value": 3}] * 2}, "has two answers"),
        ({"answers": []}, "there are no answers to collect"),
        ({"test": "other"}, "not of this test"),
    ],
)
def test_damaged_answers(folders, capsys, change, message):
    assert listening_test(folders, "--systems", folders / "made") == 0
    key = read_json(folders / "test/key.json")
    assert key["trials"][0]["stimuli"] == ["0001"]
    answers = [{"trial": 0, "stimulus": "0001", "value": 4}]
    good = {"test": key["test"], "session": "s", "answers": answers}
    write_json(folders / "good.json", good)
    assert listening_test(folders, "--collect", folders / "good.json") == 0  # nameless listener
    (folders / "bad.json").write_text(json.dumps({**good, **change}))
    capsys.readouterr()
    assert listening_test(folders, "--collect", folders / "bad.json") == 2
    assert message in capsys.readouterr().err
    (folders / "test/key.json").write_text("{}")
    assert listening_test(folders, "--collect", folders / "good.json") == 2
    assert "is not the key of a listening test" in capsys.readouterr().err
