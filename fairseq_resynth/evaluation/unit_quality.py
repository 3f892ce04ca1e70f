"""How much content units say about phones: against a phone alignment, to choose an encoder's layer and K.

Formulas: Hsu et al., "HuBERT" (IEEE/ACM TASLP 2021), where the quality of cluster assignments is measured.
Their joint distribution is over frames: p(phone y, unit z) = frames of phone y and unit z / all frames.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.units import IntegerRows
from fairseq_resynth.evaluation.alignment import Alignment, Phone


def joint_counts(
    pairs: Iterable[tuple[np.ndarray, Sequence[str]]], num_units: int
) -> tuple[np.ndarray, list[str]]:
    """Counts frames by phone and unit.

    Args:
        pairs: for each utterance its units (U,) and as many phones; frames of phone "" are not counted.
        num_units: K.

    Returns:
        (phones, K) int64, and the phones' labels.
    """
    labels: dict[str, int] = {}
    counts = np.zeros((0, num_units), dtype=np.int64)
    for units, phones in pairs:
        kept = [(unit, phone) for unit, phone in zip(units, phones, strict=True) if phone]
        rows = [labels.setdefault(phone, len(labels)) for _, phone in kept]
        if len(labels) > len(counts):
            counts = np.pad(counts, ((0, len(labels) - len(counts)), (0, 0)))
        np.add.at(counts, (rows, [unit for unit, _ in kept]), 1)
    return counts, list(labels)


def entropy(counts: np.ndarray) -> float:
    """Returns the entropy in bits of a distribution given as counts."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def unit_quality(counts: np.ndarray) -> dict[str, float]:
    """Computes the figures of a joint count.

    Args:
        counts: (phones, K) frames.

    Returns:
        pnmi: I(phone; unit) / H(phone), the share of the phone's uncertainty that the unit removes, 0 to 1.
        phone_purity: share of frames whose phone is the commonest of their unit.
        cluster_purity: share of frames whose unit is the commonest of their phone.
        units_used: share of the K units that occur; unit_entropy_bits: of their distribution, at most log2 K.
        phone_entropy_bits, frames.

    Raises:
        ValueError: no frame, or a single phone.
    """
    frames = int(counts.sum())
    by_phone, by_unit = counts.sum(axis=1), counts.sum(axis=0)
    if frames == 0 or (by_phone > 0).sum() < 2:
        raise ValueError(
            f"the alignment covers {frames} frames and {int((by_phone > 0).sum())} phones, expected two "
            "phones or more: do its names and times belong to these utterances?"
        )
    mutual = entropy(by_phone) + entropy(by_unit) - entropy(counts)
    return {
        "pnmi": max(0.0, mutual) / entropy(by_phone),
        "phone_purity": float(counts.max(axis=0).sum() / frames),
        "cluster_purity": float(counts.max(axis=1).sum() / frames),
        "units_used": float((by_unit > 0).mean()),
        "unit_entropy_bits": entropy(by_unit),
        "phone_entropy_bits": entropy(by_phone),
        "frames": frames,
    }


def frame_phones(phones: Sequence[Phone], frames: int, seconds_per_frame: float) -> list[str]:
    """Returns the phone at the middle of each frame, "" where the alignment has none.

    Args:
        phones: of one utterance, in order of time.
        frames: U.
        seconds_per_frame: unit_hop / sample_rate.
    """
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
    """Yields the units and phones of every utterance that the alignment has, by relative path or by name.

    An alignment may name an utterance by its path without suffix, or by its last part alone where that is
    unique.
    """
    names = [manifest.name(row) for row in range(len(manifest))]
    last = [name.rsplit("/", 1)[-1] for name in names]
    for row, name in enumerate(names):
        key = last[row] if name not in alignment and last.count(last[row]) == 1 else name
        if key in alignment:
            found = units[row]
            yield found, frame_phones(alignment[key], len(found), seconds_per_frame)
