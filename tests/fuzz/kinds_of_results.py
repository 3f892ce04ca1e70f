"""Lists, transcripts and alignments, and what an evaluation and a listening test leave."""

import json
import shutil
from pathlib import Path

import numpy as np
from kinds import Kind, one
from kinds_of_data import sound
from mutations import (
    change_bytes,
    change_json,
    change_json_lines,
    change_lines,
)
from tiny_voices import STATISTICS

from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import read_json, write_json
from fairseq_resynth.evaluation.listening import collect_results, read_key
from fairseq_resynth.evaluation.listening import read_results as read_answers
from fairseq_resynth.evaluation.metrics.metric import Column
from fairseq_resynth.evaluation.metrics.versa import read_results as read_versa
from fairseq_resynth.evaluation.report.report import ReportOptions, write_report
from fairseq_resynth.evaluation.runs.pairing import read_folder, read_transcripts, read_trials
from fairseq_resynth.evaluation.runs.store import Evaluation, read_evaluation, write_evaluation
from fairseq_resynth.evaluation.unit_quality import read_alignment
from fairseq_resynth.interop.published_checkpoints import read_row_names
from fairseq_resynth.preparation.manifest import read_reference

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"
xmin = 0
xmax = 1
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "a"
        intervals [2]:
            xmin = 0.5
            xmax = 1
            text = "b"
"""


def _given(folder: Path) -> None:
    (folder / "a.wav").write_bytes(sound("WAV"))
    write_json(folder / "given.json", {"a": {"seconds": 1.5, "bytes": 20}})


def _versa(folder: Path) -> None:
    (folder / "s").mkdir()
    (folder / "s" / "wav.scp").write_text("a /x/a.wav\nb /x/b.wav\n")
    (folder / "s" / "result.jsonl").write_text(
        '{"key": "a", "mcd": 5.1, "wer_delete": 1, "wer_equal": 3}\n{"key": "b", "mcd": null, "text": "x"}\n'
    )


KEY = {
    "test": "t",
    "kind": "mos",
    "stimuli": {
        "s1": {"system": "x", "utterance": "u"},
        "s2": {"system": "reference", "utterance": "u"},
    },
    "trials": [{"stimuli": ["s1"]}, {"stimuli": ["s2"]}],
}
ANSWERS = {
    "test": "t",
    "session": "1",
    "listener": "anna",
    "answers": [
        {"trial": 0, "stimulus": "s1", "value": 3},
        {"trial": 1, "stimulus": "s2", "value": 5},
    ],
}


def _listening(folder: Path) -> None:
    write_json(folder / "key.json", KEY)
    write_json(folder / "anna.json", ANSWERS)


def _read_listening(path: Path) -> None:
    key = read_key(path.parent / "key.json")
    collect_results(read_answers([path.parent / "anna.json"], key), key)


def _evaluation(folder: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(sound("WAV"))
    row = {name: "a" for name in ("system", "name", "reference_name", "speaker", "source_speaker")}
    row |= {"generated": str(folder / "a.wav"), "reference": str(folder / "b.wav"), "mcd": 5.0}
    row |= {"notes": [], "problems": {}, "error": ""}
    summary = {
        "a": {
            "utterances": 1,
            "failed": 0,
            "all": {"mcd": {"mean": 5.0, "low": 4.0, "high": 6.0, "count": 1, "undefined": 0}},
            "speakers": {},
            "pairs": {},
        }
    }
    columns = [Column("mcd", "dB", "lower", "MCD")]
    write_evaluation(folder, Evaluation([row], summary, columns, [], details={"a": {}}))


def _read_evaluation(path: Path) -> None:
    evaluation, out = read_evaluation(path.parent), path.parent / "out"
    try:
        write_evaluation(out, evaluation)
        write_report(out / "index.html", evaluation, ReportOptions(audio="none"))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _use_statistics(path: Path) -> None:
    statistics = SpeakerStatistics.load(path)
    statistics.convert(np.array([0.0, 100.0]), "anna", "boris")


LISTS = {
    "list": one(
        "list.txt",
        b"a/b.wav|text\nc.wav|x\n",
        [read_reference, read_transcripts],
        change_bytes,
        change_lines,
    ),
    "LJSpeech": one(
        "metadata.csv", b"a|Mr. X|Mister X\nb|y|y\n", [read_transcripts], change_bytes, change_lines
    ),
    "tabs": one(
        "text.tsv", b"a\tsaid one\nb\tsaid two\n", [read_transcripts], change_bytes, change_lines
    ),
    "trials": one(
        "trials.tsv", b"a\tanna\na\tboris\nb\tanna\n", [read_trials], change_bytes, change_lines
    ),
    "row names": one(
        "speakers.txt", b"anna\nboris\n", [read_row_names], change_bytes, change_lines
    ),
    "alignment.tsv": one(
        "a.tsv", b"a\t0\t0.5\tAH\na\t0.5\t1\tB\n", [read_alignment], change_bytes, change_lines
    ),
    "alignment.ctm": one(
        "a.ctm", b"a 1 0 0.5 AH\na 1 0.5 0.5 B\n", [read_alignment], change_bytes, change_lines
    ),
    "TextGrid": one("a.TextGrid", TEXTGRID.encode(), [read_alignment], change_bytes, change_lines),
    "config.json": one(
        "config.json",
        b'{"a": [1, 2.5, null], "b": {"c": "d"}}',
        [read_json],
        change_bytes,
        change_json,
    ),
    "statistics": one(
        "speakers.json",
        json.dumps(STATISTICS).encode(),
        [_use_statistics],
        change_bytes,
        change_json,
    ),
    "given.json": Kind(
        _given, "given.json", [lambda path: read_folder(path.parent)], [change_bytes, change_json]
    ),
    "VERSA": Kind(
        _versa,
        "s/result.jsonl",
        [lambda path: read_versa(path.parents[1])],
        [change_bytes, change_json_lines],
    ),
    "wav.scp": Kind(
        _versa,
        "s/wav.scp",
        [lambda path: read_versa(path.parents[1])],
        [change_bytes, change_lines],
    ),
    "key.json": Kind(_listening, "key.json", [_read_listening], [change_bytes, change_json], 30),
    "answers": Kind(_listening, "anna.json", [_read_listening], [change_bytes, change_json], 30),
    **{
        f"{name}.json": Kind(
            _evaluation, f"{name}.json", [_read_evaluation], [change_bytes, change_json], 50
        )
        for name in ("evaluation", "rows", "summary", "details")
    },
}
