"""Measure whether voice, melody, pitch and rhythm change one at a time, as in the paper's Tables 1 and 2.

    resynth disentanglement DATA --bundle BUNDLE --same english,spanish

DATA holds what `resynth speakers` wrote. Its recordings are converted to every other voice, flattened,
shifted by three semitones and slowed to 0.8. The exit status is 1 if something else changed too.
"""

import argparse

from tqdm import tqdm

from fairseq_resynth.cli import common

LABELS = {
    "similarity_to_target": "converted: similarity to the target",
    "similarity_to_source": "converted: similarity to the source",
    "target_nearer": "converted: share nearer to the target",
    "eer": "converted: equal error rate",
    "units_converted": "converted: units that come back",
    "units": "resynthesized: units that come back",
    "similarity": "resynthesized: similarity to the speaker",
    "deviation": "resynthesized: standard deviation of F0, semitones",
    "deviation_flat": "flatten: standard deviation of F0, semitones",
    "units_flat": "flatten: units that come back",
    "shift": "+3 st: measured shift, semitones",
    "similarity_shifted": "+3 st: similarity to the speaker",
    "units_shifted": "+3 st: units that come back",
    "rate_length": "rate 0.8: times as long",
}


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "data directory with recordings and speaker_vectors.json")
    add.bundle()
    add("--split", "split to measure on", "test")
    add("-n N", "only the first N; 0: all", 0)
    add("--same A,B", "these names are one person; the option may be repeated", [], action="append")
    add.shared("--content-checkpoint", "--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Prints the figures and the checks; 1 if a check fails."""
    from fairseq_resynth.evaluation.disentanglement import measure_bundle

    common.check_count("-n", args.n)
    result = measure_bundle(
        common.load_resynthesizer(args),
        args.data,
        args.split,
        args.n,
        [group.split(",") for group in args.same],
        lambda rows: tqdm(rows, desc="disentanglement", unit="file"),
    )
    figures, checks = result["figures"], result["checks"]
    lines = [f"{LABELS[name]}: {figures[name]:.3f}" for name in LABELS if name in figures]
    lines += [f"{'yes' if held else 'NO '}  {what}" for what, held in checks.items()]
    return common.report(args, result, lines, not all(checks.values()))
