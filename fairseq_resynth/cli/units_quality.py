"""Compare content units with a phone alignment, to choose an encoder, its layer and K.

resynth units-quality DATA --alignment phones.tsv
"""

import argparse
from itertools import chain
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.constants import SAMPLE_RATE, SPLITS
from fairseq_resynth.data.manifest import read_splits
from fairseq_resynth.data.storage.files import read_object
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.evaluation.unit_quality import (
    aligned_frames,
    joint_counts,
    read_alignment,
    unit_quality,
)


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "folder with {split}.tsv, {split}.units, units.json")
    add(
        "--alignment PATH",
        "phones: .tsv (name, start, end, phone), .ctm or .TextGrid, a file or a folder",
        required=True,
    )
    add("--split SPLIT", "default: all that have units", nargs="+")
    add("--ignore PHONE", "phones that are not counted, such as SIL", [], nargs="*")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Prints PNMI, purities and the use of the codebook over the splits together."""
    data = Path(args.data)
    made = read_object(
        data / "units.json", "Make it with `resynth quantize`.", unit_hop=int, num_clusters=int
    )
    seconds = made["unit_hop"] / made.get("sample_rate", SAMPLE_RATE)
    splits = args.split or [split for split in SPLITS if (data / f"{split}.units").is_file()]
    alignment = read_alignment(args.alignment)
    for phones in alignment.values():
        phones[:] = [phone for phone in phones if phone.label not in args.ignore]
    streams = []
    for split, manifest in read_splits(data, splits).items():
        units = read_integer_rows(data / f"{split}.units", len(manifest), "resynth quantize")
        if units.maximum >= made["num_clusters"]:
            raise ValueError(
                f"{data / split}.units has unit {units.maximum}, {data / 'units.json'} says "
                f"{made['num_clusters']} clusters. Run `resynth quantize` again."
            )
        streams.append(aligned_frames(manifest, units, alignment, seconds))
    counts, labels = joint_counts(chain(*streams), made["num_clusters"])
    found = unit_quality(counts)
    summary = {
        **found,
        "phones": len(labels),
        "num_clusters": made["num_clusters"],
        "splits": splits,
    }
    lines = [
        f"PNMI            {found['pnmi']:.3f}   share of the phones' entropy that the units explain",
        f"phone purity    {found['phone_purity']:.3f}   frames with the most frequent phone of their unit",
        f"cluster purity  {found['cluster_purity']:.3f}   frames with the most frequent unit of their phone",
        f"units used      {found['units_used']:.1%} of {made['num_clusters']}, entropy "
        f"{found['unit_entropy_bits']:.2f} bits",
        f"over {found['frames']} frames of {len(labels)} phones ({', '.join(splits)})",
    ]
    return common.report(args, summary, lines)
