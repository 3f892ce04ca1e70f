"""Listening tests as static pages: MOS, MUSHRA and ABX."""

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

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample, write_audio
from fairseq_resynth.data.storage.files import write_json, write_text
from fairseq_resynth.evaluation.metrics.metric import REFERENCE
from fairseq_resynth.evaluation.report.page import document
from fairseq_resynth.evaluation.runs.pairing import Collection

KINDS = ("mos", "mushra", "abx")
ANCHOR = "anchor"
LEVEL_DB = -26.0  # of full scale, root mean square: the usual level of speech tests (ITU-T P.830)
ANCHOR_HZ = 3500  # low-pass of ITU-R BS.1534's low anchor
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
    write_json(outdir / "key.json", key)
    write_text(outdir / "index.html", _page(key, options))
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
