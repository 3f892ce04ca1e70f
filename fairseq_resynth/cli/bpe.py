"""Byte-pair encoding of units, for shorter sequences in a unit language model. Repeats are removed first.

    resynth bpe train  --units DATA/train.units --num-units 100 --vocab-size 500 --model bpe.model
    resynth bpe encode --units DATA/train.units --model bpe.model --out train.txt
    resynth bpe decode --units samples.txt --model bpe.model --out samples.units

A line is `1 2 3` or `name|1 2 3`; names are kept. decode also reads the log of fairseq-interactive.
"""

import argparse

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("action", "what to do", choices=("train", "encode", "decode"))
    add("--units FILE", "files of units", required=True, nargs="+")
    add("--model FILE", "the sentencepiece model", required=True)
    add("--num-units", "number of units; default: the largest unit found + 1", type=int)
    add("--vocab-size", "number of tokens", 1000)
    add("--out FILE", "file to write (encode, decode)")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Trains, encodes or decodes, and says how much shorter the sequences are."""
    from fairseq_resynth.data.storage.files import write_text
    from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file
    from fairseq_resynth.data.units import format_integers
    from fairseq_resynth.preparation.unit_bpe import UnitBpe, train_bpe

    if args.action != "train" and not args.out:
        raise ValueError(f"bpe {args.action} needs --out FILE.")
    if args.action == "decode":
        rows = [row for path in args.units for row in read_generated_units(path).rows]
    else:
        rows = [row for path in args.units for row in read_unit_file(path)]
    if args.action == "train":
        count = args.num_units or max(int(row.units.max()) for row in rows) + 1
        size = train_bpe((row.units for row in rows), count, args.vocab_size, args.model)
    bpe = UnitBpe(args.model)
    if args.action == "decode":
        coded = [bpe.decode(row.units) for row in rows]
        summary = {"utterances": len(rows), "units": sum(map(len, coded))}
        lines = [f"{args.out}: {len(rows)} lines, {summary['units']} units"]
    else:
        coded = [bpe.encode(row.units) for row in rows]
        summary = _summary(rows, coded)
        lines = [f"{args.out}: {len(rows)} lines", _line(summary)]
    if args.action == "train":
        summary["vocab_size"] = size
        lines[0] = f"{args.model}: {size} tokens over {count} units"
    else:
        named = any(row.name for row in rows)
        texts = [
            (f"{row.label}|" if named else "") + format_integers(values)
            for row, values in zip(rows, coded, strict=True)
        ]
        write_text(args.out, "\n".join(texts) + "\n")
    return common.report(args, summary, lines)


def _summary(rows: list, coded: list) -> dict:
    from fairseq_resynth.data.units import collapse_runs

    frames = sum(len(row.units) for row in rows)
    units = sum(len(collapse_runs(row.units)[0]) for row in rows)
    tokens = sum(map(len, coded))
    return {
        "utterances": len(rows),
        "frames": frames,
        "units": units,
        "tokens": tokens,
        "tokens_per_unit": tokens / max(units, 1),
        "tokens_per_frame": tokens / max(frames, 1),
    }


def _line(summary: dict) -> str:
    return (
        f"{summary['frames']} frames, {summary['units']} units without repeats, {summary['tokens']} tokens: "
        f"{summary['units'] / summary['tokens']:.2f} times shorter than the units, "
        f"{summary['frames'] / summary['tokens']:.2f} times than the frames"
    )
