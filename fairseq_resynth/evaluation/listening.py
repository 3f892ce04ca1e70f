"""Listening tests (MOS, MUSHRA and ABX): static pages for the listeners, and what their answers say."""

import html
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import scipy.stats

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample, write_audio
from fairseq_resynth.data.storage.files import (
    misfit,
    read_json,
    read_object,
    write_json,
    write_text,
)
from fairseq_resynth.data.storage.messages import shown
from fairseq_resynth.evaluation.metrics.metric import REFERENCE
from fairseq_resynth.evaluation.report.page import document
from fairseq_resynth.evaluation.runs.pairing import Collection
from fairseq_resynth.evaluation.runs.store import grouped

KINDS = ("mos", "mushra", "abx")
ANCHOR = "anchor"
LEVEL_DB = -26.0  # of full scale, root mean square: the usual level of speech tests (ITU-T P.830)
ANCHOR_HZ = 3500  # low-pass of ITU-R BS.1534's low anchor
RESAMPLES = 1000
# ITU-R BS.1534-3, Section 4.1.2: listeners who rate the hidden reference below 90 in more than 15 %
# of the items are dropped
HIDDEN_REFERENCE_RATING, HIDDEN_REFERENCE_SHARE = 90, 0.15
INSTRUCTIONS = {
    "mos": "Rate how natural each recording sounds: 5 excellent, 4 good, 3 fair, 2 poor, 1 bad. "
    "Keys: Space plays, 1 to 5 rate, Enter continues.",
    "mushra": "Compare each recording with the reference and rate how similar they are from 0 (bad) "
    "to 100 (the same). One of them is the reference itself: give that one 100. Keys: R plays the "
    "reference, A, B, C … the recordings, Tab and arrows move the sliders, Enter continues.",
    "abx": "X is the same recording as either A or B. Which one? Keys: A, B and X play, 1 says A, "
    "2 says B, Enter continues.",
}


@dataclass(frozen=True)
class ListeningTest:
    """Options of a listening test."""

    kind: str  # mos, mushra or abx
    number: int = 20  # utterances drawn at random; 0: all that every system has
    seed: int = 0  # random seed for drawing utterances and numbering files
    keep_level: bool = False  # keep the loudness of each file instead of setting all to -26 dB RMS
    title: str = "Listening test"


def _common_names(systems: Mapping[str, Collection]) -> set[str]:
    return set.intersection(*(set(files.files) for files in systems.values()))


def names_left_out(systems: Mapping[str, Collection]) -> dict[str, list[str]]:
    """The utterances, by system, that the test leaves out since another system lacks them."""
    common = _common_names(systems)
    left = {label: sorted(set(files.files) - common) for label, files in systems.items()}
    return {label: names for label, names in left.items() if names}


def make_test(
    systems: Mapping[str, Collection], outdir: str | Path, options: ListeningTest
) -> dict[str, Any]:
    """Writes `index.html`, `audio/` with names that reveal nothing, and `key.json` into a folder.

    The system `reference` has the recordings, if there are any. Returns the contents of `key.json`, which
    listeners must not see: it says which file is which system. Raises ValueError for too few systems, no
    common utterance or an unreadable file, and FileExistsError if the folder has a test already, whose
    results would lose their key.
    """
    outdir = Path(outdir)
    if options.kind not in KINDS:
        raise ValueError(f"--kind {options.kind!r}: expected one of {', '.join(KINDS)}")
    if options.kind == "mushra" and REFERENCE not in systems:
        raise ValueError("--kind mushra compares with recordings: give --reference DIR")
    if options.kind == "abx" and len(systems) < 2:
        raise ValueError("--kind abx needs two systems, or one and --reference DIR")
    if (outdir / "key.json").exists():
        raise FileExistsError(f"{outdir} has a test already; give another --outdir")
    names = sorted(_common_names(systems))
    if not names:
        first = {label: next(iter(files.files)) for label, files in systems.items()}
        raise ValueError(f"no utterance is in all of the systems, which have for instance {first}")
    generator = np.random.default_rng(options.seed)
    if options.number and options.number < len(names):
        names = sorted(generator.permutation(names)[: options.number].tolist())
    key: dict[str, Any] = {"test": secrets.token_hex(8), "kind": options.kind}
    key["stimuli"] = _write_stimuli(systems, names, outdir, options, generator)
    key["trials"] = _trials(options.kind, list(systems), names, key["stimuli"])
    write_text(outdir / "index.html", _page(key, options))
    write_json(outdir / "key.json", key)  # last: a folder that has it is complete
    return key


def _write_stimuli(
    systems: Mapping[str, Collection],
    names: Sequence[str],
    outdir: Path,
    options: ListeningTest,
    generator: np.random.Generator,
) -> dict[str, dict[str, str]]:
    labels = [*systems, *([ANCHOR] if options.kind == "mushra" else [])]
    wanted = [(label, name) for name in names for label in labels]
    numbers = generator.permutation(len(wanted)) + 1
    stimuli = {}
    for (label, name), number in zip(wanted, numbers, strict=True):
        source = systems[REFERENCE if label == ANCHOR else label].files[name]
        wav = resample(*load_any_audio(source), SAMPLE_RATE)
        if label == ANCHOR:
            filters = scipy.signal.butter(8, ANCHOR_HZ, fs=SAMPLE_RATE, output="sos")
            wav = scipy.signal.sosfiltfilt(filters, wav).astype(np.float32)
        if not options.keep_level:
            wav = _set_level(wav)
        stimulus = f"{number:04d}"
        write_audio(outdir / "audio" / f"{stimulus}.wav", np.clip(wav, -1, 1))
        stimuli[stimulus] = {"system": label, "utterance": name}
    return dict(sorted(stimuli.items()))


def _set_level(wav: np.ndarray) -> np.ndarray:
    rms = np.sqrt(np.mean(wav.astype(float) ** 2))
    gain = 10 ** (LEVEL_DB / 20) / max(rms, 1e-5)
    return (wav * min(gain, 0.99 / max(float(np.abs(wav).max()), 1e-5))).astype(np.float32)


def _trials(
    kind: str, systems: Sequence[str], names: Sequence[str], stimuli: Mapping[str, Mapping]
) -> list[dict[str, Any]]:
    if kind == "mos":
        return [{"stimuli": [stimulus]} for stimulus in stimuli]
    found = {(entry["utterance"], entry["system"]): name for name, entry in stimuli.items()}
    if kind == "abx":
        pairs = product(names, combinations(systems, 2))
        return [{"stimuli": [found[name, label] for label in pair]} for name, pair in pairs]
    return [
        {
            "reference": found[name, REFERENCE],
            "stimuli": sorted(found[name, label] for label in (*systems, ANCHOR)),
        }
        for name in names
    ]


def _page(key: Mapping[str, Any], options: ListeningTest) -> str:
    shown = {name: key[name] for name in ("test", "kind", "trials")}
    data = json.dumps(shown).replace("</", "<\\/")
    body = (
        f"<main><h1>{html.escape(options.title)}</h1>"
        f'<p id="instructions">{html.escape(INSTRUCTIONS[options.kind])} '
        "Use headphones in a quiet room, and listen to each recording to its end.</p>"
        '<p><label>Your name or number <input id="listener" autocomplete="off"></label></p>'
        '<p id="progress" aria-live="polite"></p><div id="trial"></div>'
        '<p><button id="next" type="button" disabled>Next (Enter)</button></p>'
        '<p><a id="download" hidden>Download the results</a></p></main>'
        f'<script type="application/json" id="test">{data}</script>'
    )
    return document(options.title, body, ["listening.css"], ["listening.js"])


def read_key(path: str | Path) -> dict[str, Any]:
    """Reads a test's `key.json`. Raises FileNotFoundError, or ValueError if it is not a key."""
    hint = "Give the folder of the test with --outdir."
    stimulus = {"system": str, "utterance": str}
    shapes = {"test": str, "stimuli": {str: stimulus}, "trials": [{"stimuli": [str]}]}
    key = read_json(path, hint)
    if not (wrong := misfit(key, {"kind": str, **shapes})):
        used = {name for trial in key["trials"] for name in trial["stimuli"]}
        unknown = used - set(key["stimuli"]) | {key["kind"]} - set(INSTRUCTIONS)
        wrong = ", ".join(map(ascii, sorted(unknown)))
    if wrong:
        raise ValueError(f"{path} is not the key of a listening test: found {wrong}. {hint}")
    return key


def read_results(paths: Sequence[str | Path], key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reads the JSON files that the page let listeners download.

    Returns per file `listener`, `session`, and `answers`: dictionaries of `trial`, `stimulus` and
    `value`. Raises FileNotFoundError, or ValueError for results of another test, an answer to which
    the test has no question, or two files of one session.
    """
    results, sessions = [], {}
    for path in map(Path, paths):
        result = read_object(path, "Give files that the page of the test let listeners download.")
        if result.get("test") != key["test"]:
            raise ValueError(f"{path}: not of this test (its key says {shown(key['test'])})")
        session, answers = result.get("session"), result.get("answers")
        if not isinstance(result.get("listener", ""), str):
            raise ValueError(f"{path}: damaged, expected text as `listener`")
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
                f"{path}: answer {ascii(answer)[:200]} is not one of this test, where values are "
                f"{low} to {high}"
            )
        if (trial, stimulus) in given:
            raise ValueError(f"{path}: question {trial} has two answers for {shown(stimulus)}")
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
    if not answers:
        raise ValueError(
            f"no answers are left: all {len(dropped)} listeners were dropped for a hidden reference "
            f"below {HIDDEN_REFERENCE_RATING} in more than {HIDDEN_REFERENCE_SHARE:.0%} of the items"
            if dropped
            else "there are no answers to collect"
        )
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
        correct, count = int(sum(answer["value"] for answer in own)), len(own)
        low, high = scipy.stats.binomtest(correct, count).proportion_ci(method="wilson")
        chance = scipy.stats.binomtest(correct, count, 0.5, alternative="greater").pvalue
        outcome[pair] = {"correct": correct, "count": count, "share": correct / count}
        outcome[pair] |= {"low": float(low), "high": float(high), "p": float(chance)}
    return outcome
