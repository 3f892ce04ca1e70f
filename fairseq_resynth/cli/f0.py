"""Extract F0 at 200 Hz of whole utterances into DATA/f0, and its mean and standard deviation per speaker.

    resynth f0 DATA                    # YAAPT with the settings of Polyak et al. (2021)
    resynth f0 DATA --shard 2/8        # on the second of eight machines

speakers.json is written when train is complete. Files whose F0 fails are named, the exit status is 1, and the
split's F0 is not written until they are repaired or --accept-unvoiced is given.
"""

import argparse
from pathlib import Path
from typing import Any

from fairseq_resynth.cli import common
from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.pitch.extraction import METHODS, F0Options
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.data.storage.shards import parse_shard
from fairseq_resynth.preparation.f0 import F0Outcome, build_f0, write_speaker_statistics

_FEW_FRAMES = SAMPLE_RATE // F0_HOP  # of a second
_SHOWN_SPEAKERS = 20


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.shared("data")
    add("--method", "F0 tracker", "yaapt", choices=list(METHODS))
    add("--f0-min", "lowest F0 in Hz", 60.0)
    add("--f0-max", "highest F0 in Hz", 400.0)
    add.shared("--split")
    add(
        "--accept-unvoiced",
        "count files whose F0 failed as unvoiced, and exit with 0 even if some have no voiced frame",
        False,
    )
    add.shared("--workers", "--shard", "--json")


def run(args: argparse.Namespace) -> int:
    """Extracts every split, prints the summary; 1 if a file has no F0 or no voiced frame."""
    options, shard = F0Options(args.method, args.f0_min, args.f0_max), parse_shard(args.shard)
    data, splits = Path(args.data), list(read_splits(args.data, args.split))
    outcomes = {
        split: build_f0(data, split, options, shard, args.workers, args.accept_unvoiced)
        for split in splits
    }
    summary: dict[str, Any] = {
        "splits": {split: done.to_dict() for split, done in outcomes.items()}
    }
    lines = [line for split, outcome in outcomes.items() for line in _lines(split, outcome)]
    if outcomes.get("train", F0Outcome()).joined:
        statistics = write_speaker_statistics(data, list(read_splits(data, None)))
        summary["speakers"] = statistics.speakers
        lines.append(f"speakers.json: {len(statistics.speakers)} speakers")
        rows = list({**statistics.speakers, "all": statistics.overall}.items())
        for name, entry in rows if len(rows) <= _SHOWN_SPEAKERS else rows[-1:]:
            lines.append(f"{name}: {entry['f0_mean']:.1f} ± {entry['f0_std']:.1f} Hz")
        if few := [n for n, e in statistics.speakers.items() if e["num_voiced"] < _FEW_FRAMES]:
            lines.append(
                f"warning: {len(few)} speakers have less than a second of voiced speech, too little for "
                f"statistics: {first_names(few)}"
            )
    troubled = any(outcome.failed or outcome.unvoiced for outcome in outcomes.values())
    return common.report(args, summary, lines, troubled and not args.accept_unvoiced)


def _lines(split: str, outcome: F0Outcome) -> list[str]:
    remedy = "repair these files and run again, or give --accept-unvoiced"
    lines = common.rows_lines({split: outcome}, "f0/{split}.npy", remedy)
    if outcome.unvoiced:
        lines.append(f"warning: {len(outcome.unvoiced)} files of {split} have no voiced frame:")
        lines += [f"  {name}" for name in outcome.unvoiced]
    return lines
