"""Measure whether voice, melody, pitch and rhythm change one at a time, after the paper's Tables 1 and 2.

    resynth disentanglement DATA --bundle BUNDLE --same english,spanish

DATA holds what `resynth speakers` wrote; its recordings are converted to every other voice, flattened,
shifted by three semitones and slowed to 0.8. Exits with 1 when something else moved too.
"""

import argparse

from tqdm import tqdm

from fairseq_resynth.cli.options import add_json, report

LABELS = {
    "similarity_to_target": "converted: similarity to the target",
    "similarity_to_source": "converted: similarity to the source",
    "target_nearer": "converted: share nearer to the target",
    "eer": "converted: equal error rate",
    "units_converted": "converted: units that come back",
    "units": "resynthesised: units that come back",
    "similarity": "resynthesised: similarity to the speaker",
    "deviation": "resynthesised: F0's deviation, semitones",
    "deviation_flat": "flatten: F0's deviation, semitones",
    "units_flat": "flatten: units that come back",
    "shift": "+3 st: measured shift, semitones",
    "similarity_shifted": "+3 st: similarity to the speaker",
    "units_shifted": "+3 st: units that come back",
    "rate_length": "rate 0.8: times as long",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("data", metavar="DATA", help="with recordings and speaker_vectors.json")
    parser.add_argument("--bundle", required=True, metavar="B", help="folder, hub id or address")
    parser.add_argument("--split", default="test", help="(%(default)s)")
    parser.add_argument("-n", type=int, default=0, metavar="N", help="only the first N; 0: all")
    parser.add_argument(
        "--same",
        action="append",
        default=[],
        metavar="A,B",
        help="these names are one person; may be given several times",
    )
    parser.add_argument(
        "--content-checkpoint", metavar="FILE", help="weights of the content encoder"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the figures and the checks; 1 if a check fails."""
    from fairseq_resynth.evaluation.disentanglement import measure_bundle
    from fairseq_resynth.resynthesizer import Resynthesizer

    system = Resynthesizer.from_pretrained(args.bundle, args.content_checkpoint, args.device)
    result = measure_bundle(
        system,
        args.data,
        args.split,
        args.n,
        [group.split(",") for group in args.same],
        lambda rows: tqdm(rows, desc="disentanglement", unit="file"),
    )
    figures, checks = result["figures"], result["checks"]
    lines = [f"{LABELS[name]}: {figures[name]:.3f}" for name in LABELS if name in figures]
    lines += [f"{'yes' if held else 'NO '}  {what}" for what, held in checks.items()]
    report(args, result, lines)
    return 0 if all(checks.values()) else 1
