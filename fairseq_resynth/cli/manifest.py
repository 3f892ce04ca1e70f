"""Split a folder of 16 kHz mono audio into DATA/{train,valid,test}.tsv and .speaker.

    resynth manifest audio --outdir DATA --speaker-from parent
    resynth manifest audio --outdir DATA --ref-train train.txt --ref-valid val.txt --ref-test test.txt

The lists of --ref-* reproduce a published split: manifests, or lines {'audio': …}. Files are found by their
path, or by their name if only one file has it. Without --ref-train the files that no list names are the
training set; with it they are left out.
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.constants import SAMPLE_RATE, SPLITS, TOKENS
from fairseq_resynth.preparation.manifest import make_splits, scan, speakers_of, write_splits


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("root", "folder of 16 kHz mono audio, searched with its subfolders")
    add("--outdir DATA", "the data folder to write", required=True)
    add("--valid-percent", "percentage of valid, 0 to 100", 5.0)
    add("--test-percent", "percentage of test, 0 to 100", 5.0)
    add("--seed", "seed of the random split", 1)
    add(
        "--speaker-from RULE",
        "how to find the speaker: single (one speaker), parent or grandparent (the folder), prefix "
        "(the name up to _), or a regular expression with one group, searched in the path",
        "single",
    )
    for token, what in TOKENS.items():
        add(
            f"--{token}-from RULE",
            f"how to find the {what}, in the same way; default: none is written",
        )
    common.add_references(add)
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Writes the splits and prints their sizes."""
    lengths = scan(args.root)
    speakers = speakers_of(lengths, args.root, args.speaker_from)
    references, percents = common.given_references(args), (args.valid_percent, args.test_percent)
    splits = make_splits(speakers, references, *percents, args.seed)
    tokens = {
        token: speakers_of(lengths, args.root, rule, token)
        for token in TOKENS
        if (rule := getattr(args, f"{token}_from"))
    }
    notes = write_splits(args.root, args.outdir, splits, lengths, speakers, tokens)
    summary = {
        split: {
            "files": len(splits[split]),
            "minutes": round(sum(lengths[name] for name in splits[split]) / SAMPLE_RATE / 60, 2),
            "speakers": len({speakers[name] for name in splits[split]}),
        }
        for split in SPLITS
        if splits.get(split)
    }
    used = sum(len(names) for names in splits.values())
    if used < len(lengths):
        notes.append(f"{len(lengths) - used} files are in no list and were left out")
    lines = [
        f"{split}: {row['files']} files, {row['minutes']} min, {row['speakers']} speakers"
        for split, row in summary.items()
    ]
    lines += [f"note: {note}" for note in notes]
    return common.report(args, {"splits": summary, "notes": notes}, lines)
