"""Damage that mutations of valid files found in the readers of results and alignments."""

import json
from pathlib import Path

import pytest

from fairseq_resynth.evaluation.listening import read_key, read_results
from fairseq_resynth.evaluation.metrics.metric import Column
from fairseq_resynth.evaluation.metrics.versa import read_results as read_versa
from fairseq_resynth.evaluation.runs.pairing import check_trials, read_folder, read_transcripts
from fairseq_resynth.evaluation.runs.store import Evaluation, read_evaluation, write_evaluation
from fairseq_resynth.evaluation.unit_quality import read_alignment

KEY = {
    "test": "t",
    "kind": "mos",
    "stimuli": {"s1": {"system": "x", "utterance": "u"}},
    "trials": [{"stimuli": ["s1"]}],
}


def test_text_grid_that_is_no_text(tmp_path):
    (tmp_path / "a.TextGrid").write_bytes(b'File type = "ooTextFile"\n\xc0\xff')
    with pytest.raises(ValueError, match="a.TextGrid is not UTF-8 text"):
        read_alignment(tmp_path / "a.TextGrid")


@pytest.mark.parametrize("figure", ["1" + "0" * 400, "[" * 20_000 + "]" * 20_000])
def test_results_of_versa(tmp_path, figure):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "wav.scp").write_text("a /x/a.wav\n")
    (tmp_path / "s" / "result.jsonl").write_text(f'{{"key": "a", "mcd": {figure}}}\n')
    with pytest.raises(ValueError, match="result.jsonl:1: expected a JSON object"):
        read_versa(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"stimuli": {"s1": {"system": "x"}}}, "no utterance in 'stimuli'/'s1'"),
        ({"stimuli": {"s1": []}}, "found .. as 'stimuli'/'s1', expected an object"),
        ({"trials": [["s1"]]}, "as 'trials'/0, expected an object"),
        ({"trials": [{"stimuli": ["s2"]}]}, "found 's2'"),
        ({"kind": "other"}, "found 'other'"),
    ],
)
def test_key_of_a_listening_test(tmp_path, change, complaint):
    (tmp_path / "key.json").write_text(json.dumps({**KEY, **change}))
    with pytest.raises(ValueError, match=f"not the key of a listening test: .*{complaint}"):
        read_key(tmp_path / "key.json")


def test_messages_have_one_line_whatever_they_quote(tmp_path):
    answers = {"test": "t", "session": "1", "answers": ["\u2028\n"]}
    (tmp_path / "a.json").write_text(json.dumps(answers))
    (tmp_path / "given.json").write_text('"\\u2028"')
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "text.tsv").write_text("a\u2028b\tx\na\u2028b\ty\n")
    _write_twice(tmp_path / "twice.json", "a\u2028b")
    names = {"a\u2028b": ["s1"]}
    for read in (
        lambda: read_results([tmp_path / "a.json"], KEY),
        lambda: read_results([tmp_path / "a.json"], {**KEY, "test": "\u2028"}),
        lambda: read_results([tmp_path / "twice.json"], _key_with("a\u2028b")),
        lambda: read_transcripts(tmp_path / "text.tsv"),
        lambda: check_trials(names, ["c\u2028d"], ["s1"]),
        lambda: read_folder(tmp_path),
    ):
        with pytest.raises(ValueError) as raised:
            read()
        assert len(str(raised.value).splitlines()) == 1


def _key_with(stimulus: str) -> dict:
    stimuli = {stimulus: {"system": "x", "utterance": "u"}}
    return {**KEY, "stimuli": stimuli, "trials": [{"stimuli": [stimulus]}]}


def _write_twice(path: Path, stimulus: str) -> None:
    answer = {"trial": 0, "stimulus": stimulus, "value": 3}
    path.write_text(json.dumps({"test": "t", "session": "1", "answers": [answer, answer]}))


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("evaluation", lambda it: it.update(missing=[1]), "'evaluation'/'missing', expected an object"),
        ("evaluation", lambda it: it["columns"][0].update(digits="3"), "'3' as 'evaluation'/'columns'"),
        ("evaluation", lambda it: it["columns"][0].update(better="so"), "the column 'mcd'"),
        ("rows", lambda it: it[0].update(notes=1.5), "1.5 as 'rows'/0/'notes', expected a list"),
        ("rows", lambda it: it[0].update(mcd="5"), "'5' as 'rows'/0/'mcd'|'5' as rows/0/'mcd'"),
        ("rows", lambda it: it[0].update(system="b"), "the unknown system 'b'"),
        ("summary", lambda it: it["a"]["all"]["mcd"].pop("low"), "no low in 'summary'/'a'/'all'/'mcd'"),
        ("summary", lambda it: it["a"]["all"]["mcd"].update(high=10**400), "1000.* as 'summary'/'a'/'all'"),
        ("rows", lambda it: it[0].update(mcd=-(10**400)), "-1000.* as 'rows'/0/'mcd'|as rows/0/'mcd'"),
        ("details", lambda it: it.update(a=[1.0]), "'details'/'a', expected an object"),
    ],
)  # fmt: skip
def test_evaluation(tmp_path, file, change, complaint):
    row = dict.fromkeys(("system", "name", "reference_name", "speaker", "source_speaker"), "a")
    row |= {"generated": "a.wav", "reference": "b.wav", "mcd": 5.0}
    row |= {"notes": [], "problems": {}, "error": ""}
    figure = {"mean": 5.0, "low": 4.0, "high": 6.0, "count": 1, "undefined": 0}
    summary = {"utterances": 1, "failed": 0, "all": {"mcd": figure}, "speakers": {}, "pairs": {}}
    columns = [Column("mcd", "dB", "lower")]
    write_evaluation(tmp_path, Evaluation([row], {"a": summary}, columns, [], details={"a": {}}))
    read_evaluation(tmp_path)
    content = json.loads((tmp_path / f"{file}.json").read_text())
    change(content)
    (tmp_path / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"is a damaged evaluation: found .*({complaint})"):
        read_evaluation(tmp_path)
