"""Count the bits of streams, in whole bytes of real files, each decoded and compared.

resynth codec-bench DATA --model bundle/entropy.safetensors --json
resynth codec-bench lj_hubert100_val.txt --model lj.safetensors --rows 2::2
"""

import argparse

from tqdm import tqdm

from fairseq_resynth.cli.options import add_json, report
from fairseq_resynth.codec.bench import run_bench
from fairseq_resynth.codec.entropy_model import EntropyModel
from fairseq_resynth.codec.unit_files import read_utterances


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("data", nargs="+", metavar="DATA|FILE", help="as for `resynth fit-codec`")
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="made by `resynth fit-codec`"
    )
    parser.add_argument("--split", nargs="+", metavar="SPLIT", help="of folders; default: all")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints: JSON with a row for each utterance, or the totals."""
    model = EntropyModel.load(args.model)
    utterances = [row for path in args.data for row in read_utterances(path, args.split)]
    with tqdm(total=len(utterances), desc="codec-bench", unit="file", mininterval=0.5) as bar:
        bench = run_bench(model, utterances, bar.update)
    summary = {"model": args.model, "identity": model.identity.hex(), **bench.summary()}
    lines = [f"{name}: {value}" for name, value in summary.items()]
    if args.json:
        summary["files"] = [cost.to_dict() for cost in bench.costs]
    report(args, summary, lines)
    return 0
