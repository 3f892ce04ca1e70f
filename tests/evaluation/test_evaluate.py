"""`resynth evaluate` from folders to files, with the metrics that need nothing optional."""

import csv
import functools
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.evaluation.metrics import catalogue, metric, packages
from fairseq_resynth.evaluation.metrics.catalogue import make_metrics

FAST = "level,f0,mel,mcd,stft"
OPTIONS = ("--f0-method", "dio", "--workers", "1", "--audio", "none")


def evaluate(generated, reference, outdir, *more, metrics=FAST):
    places = [generated] if not isinstance(generated, list) else generated
    return main(
        ["evaluate", "--generated", *map(str, places), "--reference", str(reference)]
        + ["--metrics", metrics, "--outdir", str(outdir), *OPTIONS, *map(str, more)]
    )


@pytest.fixture
def generated(wavs, tmp_path):
    """The wavs with a little noise on them."""
    folder = tmp_path / "generated"
    for path in wavs.rglob("*.wav"):
        wav, rate = soundfile.read(path)
        target = folder / path.relative_to(wavs)
        target.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(wav)).normal(size=len(wav)) * 0.002
        soundfile.write(target, wav + noise, rate)
    return folder


def rows_of(outdir):
    return {(row["system"], row["name"]): row for row in read_json(outdir / "rows.json")}


def test_rows_and_summary(generated, wavs, tmp_path, capsys):
    out = tmp_path / "report"
    assert evaluate(generated, wavs, out) == 0
    rows = rows_of(out)
    assert [name for system, name in rows if system == "generated"] == [
        "ann/one",
        "ann/two",
        "bob/one",
    ]
    row = rows["generated", "ann/two"]
    assert row["speaker"] == row["source_speaker"] == "ann"
    assert 0 < row["mel_l1"] < 2 and 0 <= row["ffe"] < 0.3 and row["mcd"] > 0
    assert row["seconds"] == pytest.approx(1.3)
    entry = read_json(out / "summary.json")["generated"]
    values = [rows["generated", name]["mcd"] for name in ("ann/one", "ann/two", "bob/one")]
    assert entry["all"]["mcd"]["mean"] == pytest.approx(np.mean(values))
    assert entry["all"]["mcd"]["low"] <= entry["all"]["mcd"]["mean"] <= entry["all"]["mcd"]["high"]
    assert entry["speakers"]["ann"]["mcd"]["mean"] == pytest.approx(np.mean(values[:2]))
    assert entry["pairs"] == {}
    table = list(csv.DictReader((out / "rows.csv").open()))
    line = next(r for r in table if r["system"] == "generated" and r["name"] == "bob/one")
    assert float(line["mcd"]) == pytest.approx(values[2])
    assert (out / line["generated"]).resolve() == (generated / "bob/one.wav").resolve()
    assert "MCD dB" in capsys.readouterr().out


def test_resumes_and_notices_changes(generated, wavs, tmp_path, capsys):
    out = tmp_path / "report"
    evaluate(generated, wavs, out)
    first = rows_of(out)
    (record,) = (out / ".made_by").iterdir()
    with record.open("a") as stream:
        stream.write('{"made": "", "by": "torn')  # what an interrupted run leaves
    capsys.readouterr()
    assert evaluate(generated, wavs, out) == 0
    assert "18 values reused" in capsys.readouterr().out  # 5 metrics x 3, and level of 3 references
    assert rows_of(out) == first
    shutil.copy(wavs / "ann/one.wav", generated / "ann/one.wav")
    evaluate(generated, wavs, out)
    assert "13 values reused" in capsys.readouterr().out
    assert rows_of(out)["generated", "ann/one"]["mcd"] == 0
    assert evaluate(generated, wavs, out, "--f0-method", "harvest") == 0
    assert "15 values reused" in capsys.readouterr().out


def test_two_workers_give_the_same(generated, wavs, tmp_path):
    evaluate(generated, wavs, tmp_path / "a", metrics="level,stft")
    evaluate(generated, wavs, tmp_path / "b", "--workers", 2, metrics="level,stft")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_one_unreadable_file_is_named_and_the_rest_measured(generated, wavs, tmp_path, capsys):
    (generated / "ann/two.wav").write_bytes(b"RIFF no audio at all")
    assert evaluate(generated, wavs, tmp_path / "report") == 1
    printed = capsys.readouterr().out
    assert "1 utterances not measured" in printed and "ann/two.wav is not readable" in printed
    rows = rows_of(tmp_path / "report")
    assert rows["generated", "bob/one"]["mel_l1"] > 0
    assert "mel_l1" not in rows["generated", "ann/two"]
    assert read_json(tmp_path / "report/summary.json")["generated"]["failed"] == 1


def test_odd_audio(generated, wavs, tmp_path):
    wav, _ = soundfile.read(wavs / "ann/one.wav")
    soundfile.write(generated / "ann/one.wav", np.zeros(len(wav)), 16000)  # silence
    soundfile.write(generated / "ann/two.wav", np.tile(wav, 3), 16000)  # too long
    clipped, _ = soundfile.read(wavs / "bob/one.wav")
    loud = np.clip(
        np.interp(np.arange(0, len(clipped), 0.5), np.arange(len(clipped)), clipped) * 20, -1, 1
    )
    soundfile.write(generated / "bob/one.wav", loud, 32000)  # another rate, clipped
    assert evaluate(generated, wavs, tmp_path / "report") == 1
    rows = rows_of(tmp_path / "report")
    silent = rows["generated", "ann/one"]
    assert silent["gpe"] is None and silent["log_f0_rmse"] is None and silent["vde"] > 0
    assert "silent" in silent["notes"] and math.isfinite(silent["mcd"]) and not silent["problems"]
    long = rows["generated", "ann/two"]
    assert "more than 0.2 s apart" in long["problems"]["mel"]
    assert "more than 40 apart" in long["problems"]["f0"]
    assert long["mcd"] is None and long["mcd_dtw"] > 0
    odd = rows["generated", "bob/one"]
    assert odd["clipped"] > 0.05 and odd["seconds"] == pytest.approx(1.4)
    assert any("clipped" in note for note in odd["notes"])
    assert "resampled from 32000 Hz" in odd["notes"] and odd["ffe"] < 0.3
    figure = read_json(tmp_path / "report/summary.json")["generated"]["all"]["gpe"]
    assert (figure["count"], figure["undefined"]) == (1, 1)


def test_unpaired_files_are_listed(generated, wavs, tmp_path, capsys):
    (generated / "ann/two.wav").rename(generated / "ann/two_gen.wav")
    assert evaluate(generated, wavs, tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert "generated: 1 only generated: ann/two_gen" in printed
    assert "generated: 1 only reference: ann/two" in printed
    facts = read_json(tmp_path / "report/evaluation.json")
    assert facts["unpaired"]["generated"]["only_generated"] == ["ann/two_gen"]


def test_conversion_by_pair(generated, wavs, tmp_path):
    converted = tmp_path / "vc"
    for name, target in (("ann/one", "bob"), ("ann/two", "bob"), ("bob/one", "ann")):
        path = converted / f"{name}_{target}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(generated / f"{name}.wav", path)
    assert evaluate(converted, wavs, tmp_path / "r", "--pattern", "{name}_{target}") == 0
    pairs = read_json(tmp_path / "r/summary.json")["vc"]["pairs"]
    assert {name: figures["mcd"]["count"] for name, figures in pairs.items()} == {
        "ann → bob": 2,
        "bob → ann": 1,
    }


def test_a_missing_metric_is_reported_and_exits_as_asked(generated, wavs, tmp_path, capsys):
    arguments = generated, wavs, tmp_path / "r"
    assert evaluate(*arguments, metrics="level,units") == 0
    assert "not run: units: needs the unit encoder: give --bundle" in capsys.readouterr().out
    assert evaluate(*arguments, "--require", "all", metrics="level,units") == 1
    assert "units" in read_json(tmp_path / "r/evaluation.json")["missing"]


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(packages, "importable", lambda name: False)
    pesq, wer = make_metrics("pesq,wer", {"recognizer": "whisper:base.en"})
    assert pesq.missing() == (
        "pesq not installed: pip install pesq, or 'fairseq_resynth[eval]' for all"
    )
    assert "faster_whisper not installed: pip install faster-whisper" in wer.missing()


@pytest.mark.parametrize(
    "more, metrics, message",
    [
        ((), "loudness", "no metric is called loudness; expected names from f0, mel"),
        (("--baselines", "mp3"), "level", "no 'mp3', expected griffinlim"),
        (("--baselines", "opus:4000"), "level", "expected a rate from 6 to 510 kbit/s"),
        (("--baselines", "codec2:2000"), "level", "expected one of 700, 1200"),
        (("--recognizer", "google"), "wer", "expected pocketsphinx, whisper:NAME"),
        (("--rank-by", "beauty"), "level,mel", "--rank-by 'beauty': expected one of"),
        (("--transcripts", "nowhere.txt"), "level", "nowhere.txt does not exist"),
    ],
)
def test_mistakes_are_one_line(generated, wavs, tmp_path, capsys, more, metrics, message):
    audio = ("--audio", "link") if "--rank-by" in more else ()
    assert evaluate(generated, wavs, tmp_path / "r", *more, *audio, metrics=metrics) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("resynth evaluate: error:") and message in error


def test_json_summary(generated, wavs, tmp_path, capsys):
    evaluate(generated, wavs, tmp_path / "r", "--json", metrics="level")
    assert json.loads(capsys.readouterr().out)["failed"] == {}


def test_joined_report(generated, wavs, tmp_path, capsys):
    evaluate(f"mine={generated}", wavs, tmp_path / "a", metrics="level,stft")
    evaluate(f"mine={wavs}", wavs, tmp_path / "b", metrics="level,stft")
    places = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["report", *places, "--outdir", str(tmp_path / "both"), "--audio", "none"]) == 0
    summary = read_json(tmp_path / "both/summary.json")
    assert list(summary) == ["reference", "mine", "b: mine"]
    assert summary["b: mine"]["all"]["spectral_convergence"]["mean"] == 0
    row = rows_of(tmp_path / "both")["mine", "ann/one"]
    assert (tmp_path / "both" / row["generated"]).resolve() == generated / "ann/one.wav"
    assert main(["report", str(tmp_path / "nothing"), "--outdir", str(tmp_path / "c")]) == 2
    assert "resynth evaluate" in capsys.readouterr().err


def test_metrics_of_other_packages(monkeypatch, generated, wavs, tmp_path):
    class Loudest(metric.Metric):
        """The largest sample."""

        name = "loudest"
        columns = (metric.Column("peak", "peak", ""),)
        predicts = "nothing"

        def measure(self, comparison):
            return {"peak": float(np.abs(comparison.generated.wav).max())}

    class Point:
        name, load = "loudest", staticmethod(lambda: Loudest)

    monkeypatch.setattr(catalogue.importlib.metadata, "entry_points", lambda group: [Point])
    assert evaluate(generated, wavs, tmp_path / "r", metrics="loudest") == 0
    expected = np.abs(soundfile.read(generated / "bob/one.wav")[0]).max()
    assert rows_of(tmp_path / "r")["generated", "bob/one"]["peak"] == pytest.approx(
        expected, abs=1e-4
    )


LOADED = """
import sys
from fairseq_resynth.cli.main import main
assert main(sys.argv[1:]) == 0
print("loaded", *sorted(sys.modules))
"""


def test_only_the_metrics_that_were_asked_for_are_imported(generated, wavs, tmp_path):
    arguments = ["evaluate", "--generated", str(generated), "--reference", str(wavs)]
    arguments += ["--metrics", "level,f0", "--outdir", str(tmp_path / "r"), *OPTIONS]
    run = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fairseq_resynth.evaluation.metrics.signal" in loaded
    own = {f"fairseq_resynth.evaluation.metrics.{name}" for name in ("quality", "speaker", "units")}
    others = {"fairseq", "transformers", "speechmos", "pesq", "pystoi", "resemblyzer"}
    assert not loaded & {*own, *others, "fairseq_resynth.evaluation.metrics.intelligibility"}


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it raises
import fairseq_resynth.evaluation as room
for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
assert "matplotlib" not in sys.modules
"""


def test_no_file_needs_fairseq_or_an_optional_package_to_be_imported():
    optional = ["pyworld", "pesq", "pystoi", "speechmos", "onnxruntime", "distillmos"]
    optional += ["resemblyzer", "pocketsphinx", "faster_whisper", "transformers"]
    run = [sys.executable, "-c", IMPORT_ALL, "fairseq", *optional]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_setting_is_part_of_the_cache_key(wavs):
    from fairseq_resynth.data.storage.resume import Record
    from fairseq_resynth.evaluation.runs.measure import identity_of, measurement_keys
    from fairseq_resynth.evaluation.runs.pairing import Pair

    path, record = wavs / "ann/one.wav", Record(wavs)
    one = Pair("a", path, "a", path)

    def key(metric, pair):
        return measurement_keys(record, pair, {"metric": identity_of(metric)})["metric"]

    keys = {
        key(make_metrics("wer", settings)[0], one)
        for settings in ({}, {"language": "en"}, {"language": "de"}, {"recognizer": "whisper:x"})
    }
    assert len(keys) == 4
    (metric,) = make_metrics(
        "wer", {"device": "cuda:1"}
    )  # changes no value, but where it is computed
    assert metric.device == "cuda:1" and key(metric, one) in keys
    (metric,) = make_metrics("level", {})
    assert key(metric, one) != key(metric, replace(one, transcript="words"))
    other = replace(one, generated=wavs / "ann/two.wav")
    assert key(metric, one) != key(metric, other)
    assert key(metric, one) != key(metric, replace(one, system="reference"))


def test_interrupted_workers_stop_and_the_same_command_continues(wavs, tmp_path):
    wav, _ = soundfile.read(wavs / "ann/one.wav")
    for folder in ("made", "real"):
        (tmp_path / folder).mkdir()
        for number in range(24):
            soundfile.write(tmp_path / folder / f"u{number}.wav", wav * (1 - number / 100), 16000)
    out = tmp_path / "r"
    program = [sys.executable, "-m", "fairseq_resynth.cli.main", "evaluate", "--audio", "none"]
    program += ["--generated", str(tmp_path / "made"), "--reference", str(tmp_path / "real")]
    program += ["--metrics", "f0,mcd", "--outdir", str(out), "--workers", "2"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored in background
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    while process.poll() is None and not list(out.glob(".made_by/*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "the same command continues" in error
    (record,) = out.glob(".made_by/*")
    kept = record.read_text().count('"made": ""')
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert 0 < kept and f"{kept} values reused" in done.stdout
