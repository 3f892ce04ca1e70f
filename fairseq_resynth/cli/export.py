"""Publish a trained system as a bundle, a folder without pickles, or in another project's format.

    resynth export checkpoints/checkpoint_best.pt --f0 f0_checkpoints/checkpoint_best.pt \\
        --kmeans km.safetensors --outdir BUNDLE
    resynth export BUNDLE --to code-hifigan --outdir OUT     fairseq's and textlesslib's vocoder
    resynth export BUNDLE --to onnx --outdir OUT             also torchscript, torch-export
    resynth export BUNDLE --to hub-folder --license cc-by-4.0 --outdir OUT
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common

GRAPHS = ("onnx", "torchscript", "torch-export")


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("checkpoint CKPT|BUNDLE", "checkpoint of the unit vocoder, or a bundle")
    add("--to", "format", "bundle", choices=("bundle", "hub-folder", "code-hifigan", *GRAPHS))
    add("--ema", "export the averaged weights (--store-ema)", False)
    add("--half", "store the vocoder's weights with 16 bits: half the size", False)
    add("--f0 F0_CKPT", "checkpoint of the F0 quantizer")
    add("--kmeans FILE", "k-means file of `resynth kmeans`")
    add(
        "--speaker-vectors DATA",
        "data directory of `resynth speakers`: replace the table of speakers by a linear map of vectors",
    )
    add("--outdir OUT", "folder to write", required=True)
    add("--license", "license of the weights, as the hub spells it (hub-folder)", "")
    add.shared("--json")


def _bundle(args: argparse.Namespace):
    from fairseq_resynth.inference.bundle import load_bundle
    from fairseq_resynth.inference.checkpoints import build_bundle
    from fairseq_resynth.inference.hub import is_checkpoint

    if is_checkpoint(args.checkpoint):
        return build_bundle(args.checkpoint, args.f0, args.kmeans, args.ema)
    if args.f0 or args.kmeans or args.ema:
        raise ValueError("--f0, --kmeans and --ema belong to a checkpoint; the bundle has its own.")
    bundle = load_bundle(args.checkpoint)
    if bundle.generator is None and args.to != "hub-folder":
        raise ValueError(
            f"{args.checkpoint} holds only an F0 quantizer: --to {args.to} needs a vocoder."
        )
    return bundle


def _write(args: argparse.Namespace, bundle) -> list[str]:
    """Writes the folder; returns notes for the user."""
    from fairseq_resynth.inference.bundle import save_bundle

    if args.half and args.to not in ("bundle", "hub-folder"):
        raise ValueError(f"--half is for bundles, and --to is {args.to}: leave it out.")
    if args.to == "code-hifigan":
        from fairseq_resynth.interop.code_hifigan import export_code_hifigan

        config, notes = export_code_hifigan(bundle, args.outdir), []
        if config.get("f0_quant_num_bin"):
            repeats = bundle.streams.f0_code_hop // bundle.generator.generator.hop
            text = "fairseq expects the pitch codes at the rate of the frames: repeat each {} times"
            notes += [text.format(repeats)] if repeats > 1 else []
        if bundle.generator.durations_need_speaker:
            notes += [
                "the duration predictor is left out: it depends on the speaker, and fairseq's cannot; "
                "train with --duration-condition none for one that does not"
            ]
        return notes
    if args.to in GRAPHS:
        from fairseq_resynth.interop.graph_export import export_graph

        export_graph(bundle, args.outdir, args.to)
        return []
    streams = bundle.streams
    needs_f0 = streams is not None and streams.num_f0_codes and "edges" not in streams.f0_codes
    if needs_f0 and bundle.f0_vqvae is None:
        raise ValueError(
            "the model has a pitch stream: give the checkpoint of the F0 quantizer, --f0."
        )
    if Path(args.checkpoint).resolve() == Path(args.outdir).resolve():
        raise ValueError(f"--outdir {args.outdir} is the bundle itself: give another folder.")
    save_bundle(args.outdir, bundle, args.license, args.half)
    if streams is not None and bundle.kmeans is None and bundle.content_vqvae is None:
        return ["no --kmeans: the bundle speaks units, and cannot make them from audio"]
    return []


def run(args: argparse.Namespace) -> int:
    """Checks that the models belong together and writes the folder."""
    bundle = _bundle(args)
    if args.speaker_vectors:
        from fairseq_resynth.inference.checkpoints import with_speaker_vectors

        bundle = with_speaker_vectors(bundle, args.speaker_vectors)
    notes = _write(args, bundle)
    files = sorted(path.name for path in Path(args.outdir).iterdir())
    megabytes = sum((Path(args.outdir) / name).stat().st_size for name in files) / 1e6
    identity = f", identity {bundle.identity}" if bundle.identity else ""
    line = f"{args.outdir}: {', '.join(files)} ({megabytes:.1f} MB){identity}"
    summary = {"outdir": args.outdir, "to": args.to, "identity": bundle.identity, "files": files}
    return common.report(args, summary, [line, *notes])
