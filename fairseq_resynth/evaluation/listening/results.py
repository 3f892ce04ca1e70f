"""Means and confidence intervals of listeners' answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.evaluation.metrics.metric import REFERENCE
from fairseq_resynth.evaluation.runs.summary import grouped

RESAMPLES = 1000
# ITU-R BS.1534-3, Section 4.1.2: listeners who rate the hidden reference below 90 in more than 15 %
# of the items are dropped
HIDDEN_REFERENCE_RATING, HIDDEN_REFERENCE_SHARE = 90, 0.15


def read_key(path: str | Path) -> dict[str, Any]:
    """Reads a test's `key.json`. Raises FileNotFoundError, or ValueError if it is not a key."""
    key = read_json(path, "Give the folder of the test with --outdir.")
    kinds = {"test": str, "kind": str, "stimuli": dict, "trials": list}
    if not isinstance(key, dict) or any(not isinstance(key.get(k), t) for k, t in kinds.items()):
        raise ValueError(f"{path} is not the key of a listening test: expected {', '.join(kinds)}")
    return key


def read_results(paths: Sequence[str | Path], key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reads the JSON files that the page let listeners download.

    Returns per file `listener`, `session`, and `answers`: dictionaries of `trial`, `stimulus` and
    `value`. Raises FileNotFoundError, or ValueError for results of another test, an answer to which
    the test has no question, or two files of one session.
    """
    results, sessions = [], {}
    for path in map(Path, paths):
        result = read_json(path, "Give files that the page of the test let listeners download.")
        if not isinstance(result, dict) or result.get("test") != key["test"]:
            raise ValueError(f"{path}: not of this test (its key says {key['test']})")
        session, answers = result.get("session"), result.get("answers")
        if not isinstance(session, str) or not isinstance(answers, list):
            raise ValueError(f"{path}: damaged, expected `session` and a list of `answers`")
        if session in sessions:
            raise ValueError(f"{path}: the same session as {sessions[session]}; give each once")
        sessions[session] = path
        _check_answers(path, answers, key)
        results.append({"listener": "", **result})
    return results


def _check_answers(path: Path, answers: Sequence[Any], key: Mapping[str, Any]) -> None:
    low, high = {"mos": (1, 5), "mushra": (0, 100), "abx": (0, 1)}[key["kind"]]
    given = set()
    for answer in answers:
        fields = answer if isinstance(answer, dict) else {}
        trial, stimulus, value = map(fields.get, ("trial", "stimulus", "value"))
        known = isinstance(trial, int) and trial in range(len(key["trials"]))
        known = known and stimulus in key["trials"][trial]["stimuli"]
        if not known or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(
                f"{path}: answer {answer} is not one of this test, where values are {low} to {high}"
            )
        if (trial, stimulus) in given:
            raise ValueError(f"{path}: question {trial} has two answers for {stimulus}")
        given.add((trial, stimulus))


def collect_results(results: Sequence[Mapping[str, Any]], key: Mapping[str, Any]) -> dict[str, Any]:
    """The outcome of a test: `kind`, `listeners`, `dropped` (by MUSHRA's screening) and `systems`.
    `systems` are for mos and mushra label -> mean, low, high, count; for abx "A | B" -> correct, count,
    share, low, high, p. Raises ValueError without answers, or if all listeners were dropped."""
    dropped = _screened(results, key) if key["kind"] == "mushra" else []
    kept = [result for result in results if result["session"] not in dropped]
    answers = [
        {**answer, **key["stimuli"][answer["stimulus"]], "session": result["session"]}
        for result in kept
        for answer in result["answers"]
    ]
    if not answers and dropped:
        raise ValueError(
            f"no answers are left: all {len(dropped)} listeners were dropped for a hidden reference "
            f"below {HIDDEN_REFERENCE_RATING} in more than {HIDDEN_REFERENCE_SHARE:.0%} of the items"
        )
    if not answers:
        raise ValueError("there are no answers to collect")
    return {
        "kind": key["kind"],
        "listeners": len(kept),
        "dropped": [result["listener"] for result in results if result["session"] in dropped],
        "systems": _identified(answers, key) if key["kind"] == "abx" else _ratings(answers),
    }


def _screened(results: Sequence[Mapping[str, Any]], key: Mapping[str, Any]) -> list[str]:
    dropped = []
    for result in results:
        hidden = [
            answer["value"] < HIDDEN_REFERENCE_RATING
            for answer in result["answers"]
            if key["stimuli"][answer["stimulus"]]["system"] == REFERENCE
        ]
        if hidden and np.mean(hidden) > HIDDEN_REFERENCE_SHARE:
            dropped.append(result["session"])
    return dropped


def _ratings(answers: Sequence[dict]) -> dict[str, dict[str, float]]:
    keys = ("value", "session", "utterance")
    return {
        system: pigeonhole_interval(*([answer[key] for answer in own] for key in keys))
        for system, own in grouped(answers, lambda answer: answer["system"]).items()
    }


def pigeonhole_interval(
    values: Sequence[float], listeners: Sequence[str], utterances: Sequence[str]
) -> dict[str, float]:
    """`mean`, `low`, `high` and `count` of ratings: a 95 % interval over their listeners and utterances.

    Owen's pigeonhole bootstrap (Annals of Applied Statistics, 2007): both are resampled, and a
    rating counts as often as its listener was drawn times as often as its utterance was. An
    interval over ratings alone would be too narrow, since ratings of one listener are similar.
    """
    ratings = np.asarray(values, dtype=float)
    groups = [np.unique(labels, return_inverse=True)[1] for labels in (listeners, utterances)]
    generator, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        weights = np.ones(len(ratings))
        for group in groups:
            size = group.max() + 1
            weights *= np.bincount(generator.integers(0, size, size), minlength=size)[group]
        if weights.sum():
            means.append(ratings @ weights / weights.sum())
    low, high = map(float, np.percentile(means, [2.5, 97.5]))
    return {"mean": float(ratings.mean()), "low": low, "high": high, "count": len(ratings)}


def _identified(answers: Sequence[dict], key: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The share of correct answers with Wilson's interval, and the probability of guessing as well."""

    def pair_of(answer: dict) -> str:
        stimuli = key["trials"][answer["trial"]]["stimuli"]
        return " | ".join(key["stimuli"][stimulus]["system"] for stimulus in stimuli)

    outcome = {}
    for pair, own in grouped(answers, pair_of).items():
        correct = int(sum(answer["value"] for answer in own))
        test = scipy.stats.binomtest(correct, len(own), 0.5, alternative="greater")
        interval = scipy.stats.binomtest(correct, len(own)).proportion_ci(method="wilson")
        outcome[pair] = {
            "correct": correct,
            "count": len(own),
            "share": correct / len(own),
            "low": float(interval.low),
            "high": float(interval.high),
            "p": float(test.pvalue),
        }
    return outcome
