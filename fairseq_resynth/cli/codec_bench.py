"""Measure the bit rate of streams, or rate against distortion beside other codecs.

resynth codec-bench DATA|FILE --model entropy.safetensors --json
    size of a real file for each utterance, which is decoded and compared
resynth codec-bench DATA --bundle B50 B100 B500 --outdir OUT
    bundles at several rates, Opus, Codec2 and Speex on the same recordings: table, JSON and plot
resynth codec-bench DATA --bundle B --packets 0.5 --loss 0 5 10 20 --outdir OUT
    packets that get lost, beside the whole files: bit rate and quality
"""

import argparse
from functools import partial
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
    add.shared("--units-key")
    add(
        "--anchors A,B",
        "other codecs with their rate, as in opus:6,codec2:700,speex:4; empty: none",
    )
    add("--encodec DIR", "weights of transformers' EncodecModel")
    add.shared("--content-checkpoint")
    add("-n N", "only N recordings, evenly spaced; 0: all", 0)
    add("--outdir DIR", "folder of rate_distortion.{md,json,png}")
    add("--packets SECONDS", "with --bundle: packets of these lengths", nargs="+", type=float)
    add(
        "--loss PERCENT",
        "share of the packets that get lost",
        [0.0, 5.0, 10.0, 20.0],
        nargs="+",
        type=float,
    )
    add("--seeds N", "draws of lost packets for each rate", 3)
    gaps = "fade", "hold"
    add("--gap", "ways to fill missing packets", ["fade"], nargs="+", choices=gaps)
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Measures and prints: JSON with a row for each utterance or system, or the totals."""
    common.check_count("-n", args.n)
    if args.packets:
        return _packet_loss(args)
    return _count(args) if args.model else _rate_distortion(args)


def _packet_loss(args: argparse.Namespace) -> int:
    from fairseq_resynth.codec.speech_codec import SpeechCodec
    from fairseq_resynth.data.storage.files import write_json, write_text
    from fairseq_resynth.evaluation.codecs import packet_loss

    if args.bundle is None or len(args.bundle) != 1:
        raise ValueError("--packets needs one bundle: --bundle B")
    if not all(0 <= rate <= 100 for rate in args.loss) or args.seeds < 1:
        raise ValueError(
            f"found --loss {args.loss} and --seeds {args.seeds}, expected 0 to 100 and 1 or more"
        )
    codec = SpeechCodec.from_pretrained(args.bundle[0], decode_only=True)
    coded = packet_loss.read_coded(args.data, args.split)
    coded = coded[:: -(-len(coded) // args.n)] if args.n else coded
    total = len(args.packets) * sum(1 + bool(rate) for rate in args.loss)
    with tqdm(total=total, desc="codec-bench", unit="rate") as bar:
        how = args.packets, args.loss, args.seeds, args.gap
        points = packet_loss.measure_loss(codec, coded, *how, bar.update)
    lines = packet_loss.table(points)
    summary = {"recordings": len(coded), "points": [vars(point) for point in points]}
    if args.outdir:
        write_json(Path(args.outdir) / "packet_loss.json", summary)
        write_text(Path(args.outdir) / "packet_loss.md", "\n".join(lines) + "\n")
    return common.report(args, summary, lines)


def _count(args: argparse.Namespace) -> int:
    from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
    from fairseq_resynth.codec.tokens import TokenModel, is_token_model, read_tokens
    from fairseq_resynth.data.streams import read_utterances
    from fairseq_resynth.evaluation.codecs.bench import run_bench, run_token_bench

    summary, how = {"model": args.model}, (args.split, args.units_key)
    progress = partial(tqdm, desc="codec-bench", unit="file", mininterval=0.5)
    if is_token_model(args.model):
        tokenizer = TokenModel.load(args.model)
        codebooks = len(tokenizer.vocabularies)
        tokens = [row for path in args.data for row in read_tokens(path, codebooks, *how)]
        with progress(total=len(tokens)) as bar:
            found, files = run_token_bench(tokenizer, tokens, bar.update)
    else:
        model = EntropyModel.load(args.model)
        summary["identity"] = model.identity.hex()
        rows = [row for path in args.data for row in read_utterances(path, *how)]
        with progress(total=len(rows)) as bar:
            found, files = run_bench(model, rows, bar.update)
    summary |= found
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
