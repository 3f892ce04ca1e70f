"""Turn a file of units that was made elsewhere into a data directory.

    resynth parse-codes --codes units.txt --manifest audio.tsv --outdir DATA --cv 0.05 --tt 0.05
    resynth parse-codes --codes hubert.km --manifest all.tsv --outdir DATA --ref-valid v.txt --ref-test t.txt

Lines are `name|1 2 3` (GSLM), `1 2 3` in the order of the manifest (HuBERT), `name<TAB>1,2,3` (CPC, VQ-VAE)
or dicts. The manifest is fairseq's: the root, then path<TAB>samples at 16 kHz.
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.data.manifest import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    add = parser.add_argument
    add("--codes", required=True, metavar="F", help="file of units")
    add("--manifest", required=True, metavar="TSV", help="manifest of the audio")
    add("--outdir", required=True, metavar="D", help="data directory to write")
    add(
        "--min-dur",
        type=float,
        default=0.0,
        metavar="S",
        help="leave out utterances shorter than S seconds",
    )
    add("--cv", type=float, default=0.05, help="proportion of valid, 0 to 1")
    add("--tt", type=float, default=0.05, help="proportion of test, 0 to 1")
    add("--seed", type=int, default=42, help="seed of the random split")
    for split in SPLITS:
        add(f"--ref-{split}", metavar="FILE", help=f"list of the files of {split}")
    add("--speaker-from", default="single", metavar="RULE", help="as in `resynth manifest`")
    add("--unit-hop", type=int, default=0, help="samples per unit; default: from the lengths")
    add("--num-units", type=int, default=0, help="number of units; default: the largest + 1")
    add("--feature-type", default="unknown", help="name of the encoder, for units.json")
    add(
        "--dict-lines",
        nargs="?",
        const="codes",
        default="",
        metavar="KEY",
        help="also write {train,val,test}.txt as the original has them, the units under KEY "
        "(hubert, cpc_km100, vqvae256, codes)",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Matches units and audio, splits and writes."""
    from fairseq_resynth.data.manifest import read_manifest
    from fairseq_resynth.preparation.manifest import random_splits, speakers_of
    from fairseq_resynth.preparation.parse_codes import describe, match_codes, write_codes
    from fairseq_resynth.preparation.published_splits import reference_splits

    manifest = read_manifest(args.manifest)
    codes = match_codes(args.codes, manifest, args.unit_hop, args.num_units, args.min_dur)
    speakers = speakers_of(codes.units, manifest.root, args.speaker_from)
    references = {
        split: getattr(args, f"ref_{split}") for split in SPLITS if getattr(args, f"ref_{split}")
    }
    if references:
        splits = reference_splits(codes.units, references)
    else:
        splits = random_splits(speakers, 100 * args.cv, 100 * args.tt, args.seed)
    description = describe(args.codes, args.feature_type)
    notes = write_codes(
        args.outdir, manifest, codes, splits, speakers, description, args.dict_lines
    )
    counts = {split: len(splits.get(split, [])) for split in SPLITS}
    if codes.too_short:
        notes.append(f"{len(codes.too_short)} utterances under {args.min_dur} s were left out")
    lines = [
        ", ".join(f"{split}: {count}" for split, count in counts.items())
        + f"; {codes.num_units} units of {codes.unit_hop} samples"
    ]
    summary = {"splits": counts, "unit_hop": codes.unit_hop, "num_units": codes.num_units}
    common.report(args, {**summary, "notes": notes}, [*lines, *(f"note: {note}" for note in notes)])
    return 0
