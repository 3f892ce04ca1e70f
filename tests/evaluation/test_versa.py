"""VERSA's lists, and its results in the report."""

import json
import math
import shutil
from pathlib import Path

import pytest

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.evaluation.metrics.versa import read_results, write_lists
from fairseq_resynth.evaluation.runs.pairing import Pair


@pytest.fixture
def run(wavs, tmp_path):
    """Evaluates a copy of the wavs, some under names with a space; returns the exit status."""
    generated = tmp_path / "made here"
    shutil.copytree(wavs, generated)
    (generated / "ann/two.wav").rename(generated / "ann/two b.wav")
    (generated / "bob/one.wav").rename(generated / "bob/oné.wav")
    references = tmp_path / "references"
    shutil.copytree(generated, references)
    (tmp_path / "text").write_text("ann/one\tHello there\nann/two b\t\nbob/oné\tGood bye\n")
    command = ["evaluate", "--generated", f"my system={generated}", "--reference", str(references)]
    command += ["--metrics", "level,versa", "--versa", str(tmp_path / "versa"), "--audio", "none"]
    command += ["--transcripts", str(tmp_path / "text"), "--workers", "1"]
    return lambda *more: main([*command, "--outdir", str(tmp_path / "report"), *more])


def results(path, **values):
    lines = [json.dumps({"key": key, **found}) for key, found in values.items()]
    path.write_text("\n".join(lines) + "\n")


def test_lists_then_results(run, tmp_path, capsys):
    assert run() == 0
    assert "--pred " in capsys.readouterr().out  # the command to run
    folder = tmp_path / "versa/my%20system"
    lines = (folder / "wav.scp").read_text().splitlines()
    keys = [line.split(maxsplit=1)[0] for line in lines]  # as VERSA reads them
    assert keys == ["ann/one", "ann/two%20b", "bob/on%C3%A9"]
    assert lines[1].split(maxsplit=1)[1] == str(tmp_path / "made here/ann/two b.wav")
    references = (folder / "reference.scp").read_text().splitlines()
    assert references[0] == f"ann/one {tmp_path}/references/ann/one.wav"
    assert (folder / "text").read_text() == "ann/one Hello there\nbob/on%C3%A9 Good bye\n"
    counts = {f"whisper_wer_{kind}": 1 for kind in ("insert", "delete", "replace", "equal")}
    few = {"utmos": 4.25, "mcd": None, "ref_text": "hello there", "vad_info": [], **counts}
    more = {**few, "utmos": 3.25, "mcd": 6, "whisper_wer_equal": 8, "whisper_wer_insert": 0}
    results(folder / "result.jsonl", **{"ann/one": few, "ann/two%20b": more})
    results(folder / "gpu.jsonl", **{"ann/one": {"f0corr": 0.5}, "ann/two%20b": {"f0corr": 0.7}})
    assert run("--rank-by", "versa_utmos") == 0
    printed = capsys.readouterr().out
    assert "my system: VERSA has no result (1): bob/oné" in printed
    assert "VERSA utmos" in printed and "VERSA whisper_wer %" in printed
    figures = read_json(tmp_path / "report/summary.json")["my system"]["all"]
    assert figures["versa_utmos"]["mean"] == 3.75 and figures["versa_f0corr"]["mean"] == 0.6
    assert (figures["versa_mcd"]["mean"], figures["versa_mcd"]["undefined"]) == (6, 2)
    assert figures["versa_whisper_wer"]["mean"] == pytest.approx(5 / 13)  # edits / words of both
    assert not {"versa_ref_text", "versa_whisper_wer_equal"} & set(figures)
    better = {
        c["name"]: c["better"] for c in read_json(tmp_path / "report/evaluation.json")["columns"]
    }
    expected = {"versa_utmos": "higher", "versa_mcd": "lower", "versa_f0corr": "higher"}
    assert expected.items() <= better.items() and better["versa_whisper_wer"] == "lower"


def test_new_results_are_read_again(run, tmp_path):
    run()
    path = tmp_path / "versa/my%20system/result.jsonl"
    for utmos in (2, 3):
        results(path, **{"ann/one": {"utmos": utmos}})
        assert run() == 0
        mean = read_json(tmp_path / "report/summary.json")["my system"]["all"]["versa_utmos"]
        assert mean["mean"] == utmos


def test_damaged_results_are_one_sentence(run, tmp_path, capsys):
    run()
    path = tmp_path / "versa/my%20system/result.jsonl"
    for line in ("{'key': 'ann/one'}", '{"utmos": 4}', "[]", '{"key": "ann/other", "utmos": 4}'):
        path.write_text('{"key": "ann/one", "utmos": 4}\n' + line + "\n")
        assert run() == 2
        assert "result.jsonl:2: expected a JSON object with the `key`" in capsys.readouterr().err


def test_places_that_cannot_be(run, tmp_path, capsys):
    (tmp_path / "versa").write_text("")
    assert run() == 2
    assert "versa is a file; give a folder" in capsys.readouterr().err
    path = Path("a.zip:10:20")
    pairs = [Pair("a", path, "a", path, system="mine")]
    with pytest.raises(ValueError, match="cannot read a.zip:10:20; unpack the archive"):
        write_lists(tmp_path / "lists", pairs)


def test_figures_that_are_no_numbers(tmp_path):
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / "wav.scp").write_text("a /x/a.wav\n")
    (folder / "r.jsonl").write_text('{"key": "a", "pesq": NaN, "ok": true, "hyp_wer_insert": 2}\n')
    ((path, figures),) = read_results(tmp_path).items()
    assert str(path) == "/x/a.wav" and set(figures) == {
        "versa_pesq",
        "versa_hyp_wer",
        "versa_hyp_wer_words",
    }
    assert math.isnan(figures["versa_pesq"]) and math.isnan(figures["versa_hyp_wer"])
