"""Measure the bit rate of streams, or rate against distortion beside other codecs.

resynth codec-bench DATA|FILE --model entropy.safetensors --json
    size of a real file for each utterance, which is decoded and compared
resynth codec-bench DATA --bundle B50 B100 B500 --outdir OUT
    bundles at several rates, Opus, Codec2 and Speex on the same recordings: table, JSON and plot
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA|FILE", "folders of `resynth quantize`, unit files, or audio", nargs="+")
    system = add.one_of(required=True)
    system("--model FILE", "a model of `resynth fit-codec`: measure the bit rate")
    system("--bundle B", "bundles: measure rate against distortion", nargs="+")
    add("--split SPLIT", "splits of folders; default: all", nargs="+")
    add(
        "--anchors A,B",
        "other codecs with their rate, as in opus:6,codec2:700,speex:4; empty: none",
    )
    add("--encodec DIR", "weights of transformers' EncodecModel")
    add.shared("--content-checkpoint")
    add("-n N", "only N recordings, evenly spaced; 0: all", 0)
    add("--outdir DIR", "folder of rate_distortion.{md,json,png}")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Measures and prints: JSON with a row for each utterance or system, or the totals."""
    return _count(args) if args.model else _rate_distortion(args)


def _count(args: argparse.Namespace) -> int:
    from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
    from fairseq_resynth.data.streams import read_utterances
    from fairseq_resynth.evaluation.codecs.bench import run_bench

    model = EntropyModel.load(args.model)
    utterances = [row for path in args.data for row in read_utterances(path, args.split)]
    with tqdm(total=len(utterances), desc="codec-bench", unit="file", mininterval=0.5) as bar:
        found, files = run_bench(model, utterances, bar.update)
    summary = {"model": args.model, "identity": model.identity.hex(), **found}
    lines = [f"{name}: {value}" for name, value in summary.items()]
    if args.json:
        summary["files"] = files
    return common.report(args, summary, lines)


def _rate_distortion(args: argparse.Namespace) -> int:
    from fairseq_resynth.codec.speech_codec import SpeechCodec
    from fairseq_resynth.data.storage.files import write_json, write_text
    from fairseq_resynth.evaluation.codecs import rate_distortion
    from fairseq_resynth.evaluation.codecs.baselines import encodec_baselines, parse_baselines

    utterances, speakers = rate_distortion.list_recordings(args.data, args.split)
    if args.n:
        utterances = utterances[:: -(-len(utterances) // args.n)]
    text = rate_distortion.DEFAULT if args.anchors is None else args.anchors
    others = parse_baselines(text, "--anchors")
    others += encodec_baselines(args.encodec) if args.encodec else []
    codecs = {
        Path(folder).name: SpeechCodec.from_pretrained(folder, args.content_checkpoint)
        for folder in args.bundle
    }
    if len(codecs) < len(args.bundle):
        raise ValueError("the bundles' folders must have different names: they label the points")
    total = len(utterances) * (len(codecs) + len(others))
    with tqdm(total=total, desc="codec-bench", unit="file", mininterval=0.5) as bar:
        points = rate_distortion.measure_codecs(utterances, codecs, others, speakers, bar.update)
    lines = rate_distortion.table(points)
    summary = {"recordings": len(utterances), "points": [vars(point) for point in points]}
    if args.outdir:
        out = Path(args.outdir)
        write_json(out / "rate_distortion.json", summary)
        write_text(out / "rate_distortion.md", "\n".join(lines) + "\n")
        rate_distortion.plot(points, out / "rate_distortion.png")
    return common.report(args, summary, lines, any(point.failed for point in points))
