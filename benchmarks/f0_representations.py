"""How well each F0 representation gives F0 back, without a vocoder: errors against the tracker's own F0.

usage: python benchmarks/f0_representations.py DATA F0_CHECKPOINT … [--split test]

DATA holds the outputs of `resynth f0` and `resynth quantize`. Prints a Markdown table. Bits per second are of
codes drawn independently (their entropy), without a context model.
"""

import argparse
from pathlib import Path

import numpy as np

from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.representations import ContinuousF0, describe, make_representation
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.inference.checkpoints import load_f0_quantizer
from fairseq_resynth.preparation.f0_codes import fit_quantiles


def measure(representation, rows, hop: int) -> dict[str, float]:
    """Returns voicing errors, gross errors (above 20 %), RMSE in semitones and bits per second."""
    voicing, gross, squares, codes = [], [], [], []
    for f0, entry in rows:
        values = representation.encode(f0, entry)
        back = representation.decode(values, entry)[: len(f0)]
        back = np.pad(back, (0, len(f0) - len(back)))
        voicing.append((f0 > 0) != (back > 0))
        both = (f0 > 0) & (back > 0)
        gross.append(np.abs(back[both] / f0[both] - 1) > 0.2)
        squares.append(np.square(12 * np.log2(back[both] / f0[both])))
        codes.append(values.ravel() if hop else np.zeros(1))
    _, counts = np.unique(np.concatenate(codes), return_counts=True)
    shares = counts / counts.sum()
    bits = -(shares * np.log2(shares)).sum() * 16000 / hop if hop else float("nan")
    return {
        "voicing errors, %": 100 * np.concatenate(voicing).mean(),
        "gross errors, %": 100 * np.concatenate(gross).mean(),
        "RMSE, semitones": np.sqrt(np.concatenate(squares).mean()),
        "bits per second": bits,
    }


def main() -> None:
    """Measures all of them on one split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("f0_checkpoints", nargs="+", metavar="F0_CHECKPOINT")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    manifest = read_manifest(args.data / f"{args.split}.tsv")
    names = (args.data / f"{args.split}.speaker").read_text().splitlines()
    statistics = SpeakerStatistics.load(args.data / "speakers.json")
    cache = F0Cache(args.data, args.split, manifest)
    rows = [(cache[row], statistics.entry(name.strip())) for row, name in enumerate(names)]
    found = {"continuous": (ContinuousF0(), 0)}
    for path in args.f0_checkpoints:
        f0_vqvae = load_f0_quantizer(path)
        description = describe(f0_vqvae, path)
        name = f"{description.get('representation', 'vqvae')} ({f0_vqvae.num_codes} codes, 12.5 Hz)"
        found[name] = make_representation(description, f0_vqvae), description["f0_code_hop"]
    unit_hop = read_json(args.data / "units.json")["unit_hop"]
    for bins in (8, 16, 32, 64):
        for hop in (unit_hop, 1280):
            quantile = fit_quantiles(args.data, bins, hop)[0]
            found[f"quantile ({bins} bins, {16000 / hop:g} Hz)"] = (quantile, hop)
    results = {name: measure(made, rows, hop) for name, (made, hop) in found.items()}
    print("| representation | " + " | ".join(next(iter(results.values()))) + " |")
    print("|---|" + "---:|" * 4)
    for name, figures in results.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in figures.values()) + " |")


if __name__ == "__main__":
    main()
