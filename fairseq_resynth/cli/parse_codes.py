"""Turn a file of units that was made elsewhere into a data directory.

    resynth parse-codes --codes units.txt --manifest audio.tsv --outdir DATA --cv 0.05 --tt 0.05
    resynth parse-codes --codes hubert.km --manifest all.tsv --outdir DATA --ref-valid v.txt --ref-test t.txt

Lines are `name|1 2 3` (GSLM), `1 2 3` in the order of the manifest (HuBERT), `name<TAB>1,2,3` (CPC, VQ-VAE),
`[Hu1][Hu2]` (SpiritLM, slamkit) or dicts; parquet, saved datasets of Hugging Face, and arrays of numpy and
torch are read too. The manifest is fairseq's: the root, then path<TAB>samples at 16 kHz.
"""

import argparse

from fairseq_resynth.cli import common
from fairseq_resynth.constants import SPLITS


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("--codes F", "file of units", required=True)
    add("--manifest TSV", "manifest of the audio", required=True)
    add("--outdir D", "data directory to write", required=True)
    add("--min-dur S", "leave out utterances shorter than S seconds", 0.0)
    add("--cv", "proportion of valid, 0 to 1", 0.05)
    add("--tt", "proportion of test, 0 to 1", 0.05)
    add("--seed", "seed of the random split", 42)
    common.add_references(add)
    add(
        "--speaker-from RULE", "as in `resynth manifest`; default: as the file says, or else single"
    )
    add.shared("--units-key")
    add("--unit-hop", "samples per unit; default: from the lengths", 0)
    add("--num-units", "number of units; default: the largest + 1", 0)
    add("--feature-type", "name of the encoder, for units.json", "unknown")
    add(
        "--dict-lines KEY",
        "also write {train,val,test}.txt as the original has them, the units under KEY "
        "(hubert, cpc_km100, vqvae256, codes)",
        "",
        nargs="?",
        const="codes",
    )
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Matches units and audio, splits and writes."""
    from fairseq_resynth.data.manifest import read_manifest
    from fairseq_resynth.preparation.manifest import make_splits, speakers_of
    from fairseq_resynth.preparation.parse_codes import describe, match_codes, write_codes

    manifest = read_manifest(args.manifest)
    codes = match_codes(
        args.codes, manifest, args.unit_hop, args.num_units, args.min_dur, args.units_key
    )
    speakers = codes.speakers
    if args.speaker_from or not speakers:
        speakers = speakers_of(codes.units, manifest.root, args.speaker_from or "single")
    percents = 100 * args.cv, 100 * args.tt
    splits = make_splits(speakers, common.given_references(args), *percents, args.seed)
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
    lines += [f"note: {note}" for note in notes]
    return common.report(args, {**summary, "notes": notes}, lines)
