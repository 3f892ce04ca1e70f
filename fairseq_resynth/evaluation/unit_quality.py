"""How much content units tell about phones, measured with a phone alignment.

It helps to choose an encoder's layer and the number of units K. Formulas: Hsu et al., "HuBERT"
(IEEE/ACM TASLP 2021). The joint distribution is over frames: p(phone y, unit z) = frames of phone y
and unit z / all frames.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.storage.files import decode_text, text_lines
from fairseq_resynth.data.units import IntegerRows


@dataclass(frozen=True)
class Phone:
    """One interval of an alignment, in seconds."""

    start: float
    end: float
    label: str


Alignment = dict[str, list[Phone]]


def read_alignment(path: str | Path) -> Alignment:
    """Reads a phone alignment: a .tsv, .ctm or .TextGrid file, or a folder of such files.

    `.tsv`: `name<TAB>start<TAB>end<TAB>phone` in seconds. `.ctm` (NIST): `name channel start
    duration phone`. `.TextGrid` (Praat's long text form, as the Montreal Forced Aligner writes it):
    the tier called phones, or else the last interval tier; the name is the file's path relative to
    the folder. Empty labels are left out.

    Raises FileNotFoundError without such a file, and ValueError for another suffix, or for a
    malformed line, with its number.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    files, root = [path], path.parent
    if path.is_dir():
        suffixes = (*_FIELDS, ".TextGrid")
        files, root = sorted(file for file in path.rglob("*") if file.suffix in suffixes), path
    if not files:
        raise FileNotFoundError(f"{path} has no .tsv, .ctm or .TextGrid file")
    alignment: Alignment = {}
    for file in files:
        name = str(file.relative_to(root).with_suffix(""))
        found = _read_textgrid(file, name) if file.suffix == ".TextGrid" else _read_lines(file)
        for key, phone in found:
            if phone.label:
                alignment.setdefault(key, []).append(phone)
    return {key: sorted(phones, key=lambda phone: phone.start) for key, phones in alignment.items()}


def _phone(start: str, end: str, label: str, where: str) -> Phone:
    try:
        phone = Phone(float(start), float(end), label.strip())
    except ValueError as error:
        raise ValueError(f"{where}: expected times in seconds: {error}") from error
    if not 0 <= phone.start <= phone.end:
        interval = f"{phone.start} to {phone.end}"
        raise ValueError(f"{where}: the interval {interval} ends before its start")
    return phone


_FIELDS = {".tsv": "name<TAB>start<TAB>end<TAB>phone", ".ctm": "name channel start duration phone"}


def _read_lines(file: Path) -> Iterator[tuple[str, Phone]]:
    if file.suffix not in _FIELDS:
        raise ValueError(f"{file} is not an alignment: expected .tsv, .ctm or .TextGrid")
    for number, line in enumerate(text_lines(file), 1):
        where, is_ctm = f"{file}:{number}", file.suffix == ".ctm"
        fields = line.split() if is_ctm else line.split("\t")
        if is_ctm and (not fields or line.startswith(";;")):
            continue
        if len(fields) < 5 if is_ctm else len(fields) != 4:
            raise ValueError(f"{where}: expected `{_FIELDS[file.suffix]}`, found {line[:80]!r}")
        if is_ctm:
            start = _phone(fields[2], "inf", fields[4], where).start
            duration = _phone("0", fields[3], fields[4], where).end
            yield fields[0], Phone(start, start + duration, fields[4])
        else:
            yield fields[0], _phone(fields[1], fields[2], fields[3], where)


_INTERVAL = re.compile(r'xmin = ([\d.eE+-]+)\s+xmax = ([\d.eE+-]+)\s+text = "((?:[^"]|"")*)"')
_TIER = re.compile(
    r'class = "IntervalTier"\s+name = "((?:[^"]|"")*)"(.*?)(?=item \[\d+\]|\Z)', re.DOTALL
)


def _read_textgrid(file: Path, name: str) -> Iterator[tuple[str, Phone]]:
    tiers = dict(_TIER.findall(decode_text(file.read_bytes(), file)))
    if not tiers:
        raise ValueError(f"{file} has no interval tier in Praat's long text form")
    tier = tiers.get("phones", list(tiers.values())[-1])
    for start, end, label in _INTERVAL.findall(tier):
        yield name, _phone(start, end, label.replace('""', '"'), str(file))


def joint_counts(
    pairs: Iterable[tuple[np.ndarray, Sequence[str]]], num_units: int
) -> tuple[np.ndarray, list[str]]:
    """Counts frames by phone and unit: (phones, K) int64, and the phones' labels. `pairs` are the units
    (U,) and U phones of each utterance; frames of phone "" are not counted."""
    rows: dict[str, np.ndarray] = {}
    for units, phones in pairs:
        for unit, phone in zip(units, phones, strict=True):
            if phone:
                rows.setdefault(phone, np.zeros(num_units, np.int64))[unit] += 1
    return np.array(list(rows.values()), np.int64).reshape(-1, num_units), list(rows)


def _entropy(counts: np.ndarray) -> float:
    """The entropy, in bits, of a distribution given as counts."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def unit_quality(counts: np.ndarray) -> dict[str, float]:
    """Measures of the relation between phones and units, from their (phones, K) counts of frames.

    Returns:
        pnmi: I(phone; unit) / H(phone), the share of the phone's entropy that the unit removes, 0 to 1.
        phone_purity: share of frames whose phone is the most frequent one of their unit.
        cluster_purity: share of frames whose unit is the most frequent one of their phone.
        units_used: share of the K units that occur.
        unit_entropy_bits: entropy of the units, at most log2 K.
        phone_entropy_bits: entropy of the phones.
        frames: number of frames.

    Raises ValueError if there are no frames, or there is only one phone.
    """
    frames = int(counts.sum())
    by_phone, by_unit = counts.sum(axis=1), counts.sum(axis=0)
    if frames == 0 or (by_phone > 0).sum() < 2:
        raise ValueError(
            f"the alignment covers {frames} frames and {int((by_phone > 0).sum())} phones, expected "
            "two phones or more: do its names and times belong to these utterances?"
        )
    mutual = _entropy(by_phone) + _entropy(by_unit) - _entropy(counts)
    return {
        "pnmi": max(0.0, mutual) / _entropy(by_phone),
        "phone_purity": float(counts.max(axis=0).sum() / frames),
        "cluster_purity": float(counts.max(axis=1).sum() / frames),
        "units_used": float((by_unit > 0).mean()),
        "unit_entropy_bits": _entropy(by_unit),
        "phone_entropy_bits": _entropy(by_phone),
        "frames": frames,
    }


def frame_phones(phones: Sequence[Phone], frames: int, seconds_per_frame: float) -> list[str]:
    """The phone at the middle of each frame, "" where the alignment has none. `phones` are those of one
    utterance, in order of time."""
    starts = np.array([phone.start for phone in phones])
    middles = (np.arange(frames) + 0.5) * seconds_per_frame
    found = np.searchsorted(starts, middles, side="right") - 1
    return [
        phones[index].label if index >= 0 and middle < phones[index].end else ""
        for index, middle in zip(found, middles, strict=True)
    ]


def aligned_frames(
    manifest: Manifest, units: IntegerRows, alignment: Alignment, seconds_per_frame: float
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields units and phones of every utterance that the alignment has. It may name an utterance by its
    relative path without suffix, or by a unique last part of it."""
    names = [manifest.name(row) for row in range(len(manifest))]
    last = [name.rsplit("/", 1)[-1] for name in names]
    occurrences = Counter(last)
    for row, name in enumerate(names):
        key = last[row] if name not in alignment and occurrences[last[row]] == 1 else name
        if key in alignment:
            found = units[row]
            yield found, frame_phones(alignment[key], len(found), seconds_per_frame)
