"""Convert a published checkpoint to a bundle.

    resynth import --from speech-resynthesis checkpoints/vctk_hubert100_lut --outdir BUNDLE \\
        --speakers speakers.txt --f0-stats f0_stats.th
    resynth import --from code-hifigan vocoder/ --outdir BUNDLE
    resynth import --from code-hifigan vocoder_v2.pt --config card.json --outdir BUNDLE

The folder holds g_XXXXXXXX or model.pt, and config.json. Seamless' vocoder needs none; its card as JSON names
the languages and speakers. speech-resynthesis does not store the names of the
speakers: --speakers reads them, one per line, in sorted order of the names of the training list.
"""

import argparse
import shlex
from dataclasses import fields
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.constants import TOKENS


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("checkpoint CHECKPOINT_DIR", "folder, or file of weights")
    add(
        "--from",
        "project",
        dest="source",
        required=True,
        choices=("speech-resynthesis", "code-hifigan"),
    )
    add("--outdir BUNDLE", "folder to write", required=True)
    add("--config FILE", "default: config.json in the folder of the weights", type=Path)
    add(
        "--speakers FILE",
        "names of the speakers, one per line; default: speakers.txt in the same folder, else 0, 1, 2, …",
        type=Path,
    )
    add(
        "--training-list FILE",
        "instead of --speakers: the training list, whose paths name the speakers",
        type=Path,
    )
    for token in TOKENS:
        text = f"names of the {token}s, one per line; default: {token}s.txt in the same folder"
        add(f"--{token}s FILE", text, type=Path)
    add("--f0-stats FILE", "F0 statistics (f0_stats.pth)", type=Path)
    add(
        "--f0-stats-speakers FILE",
        "names of the numbered speakers of the statistics, if their list was another one",
        type=Path,
    )
    add("--f0-quantizer DIR", "F0 quantizer, if it is not inside the checkpoint", type=Path)
    add("--f0-code-hop", "samples per pitch code (code-hifigan)", 0)
    add(
        "--for-training FILE",
        "also write a checkpoint for `fairseq-train --restore-file`, from do_XXXXXXXX",
    )
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Reads everything, then writes the folder."""
    from fairseq_resynth.inference.bundle import save_bundle
    from fairseq_resynth.interop.code_hifigan import import_code_hifigan
    from fairseq_resynth.interop.published_checkpoints import ImportOptions
    from fairseq_resynth.interop.speech_resynthesis import import_speech_resynthesis

    args.tokens = {token: getattr(args, f"{token}s") for token in TOKENS}
    options = ImportOptions(
        **{field.name: getattr(args, field.name) for field in fields(ImportOptions)}
    )
    if args.for_training and args.source != "speech-resynthesis":
        raise ValueError(
            "--for-training needs --from speech-resynthesis: others do not store the optimizer."
        )
    reader = {"speech-resynthesis": import_speech_resynthesis, "code-hifigan": import_code_hifigan}[
        args.source
    ]
    bundle = reader(args.checkpoint, options)
    summary: dict = {"outdir": args.outdir}
    if args.for_training:
        from fairseq_resynth.interop.training_state import write_training_checkpoint

        summary["training"] = write_training_checkpoint(
            args.checkpoint, args.config, bundle, args.for_training
        )
    summary["identity"] = save_bundle(args.outdir, bundle)
    return common.report(args, summary, _lines(args, bundle, summary))


def _lines(args: argparse.Namespace, bundle, summary: dict) -> list[str]:
    lines = [f"{args.outdir}: identity {summary['identity']}; its README.md says what it is"]
    streams = bundle.streams
    if streams is None:
        lines.append(
            f"resynth quantize-f0 DATA --bundle {args.outdir}   writes pitch codes with it"
        )
    elif streams.has_pitch and not streams.speaker_statistics:
        lines.append(
            "no F0 statistics (--f0-stats): F0 is normalized by the statistics of each utterance"
        )
    if streams is not None and streams.speakers and streams.speakers[0] == "0":
        lines.append(
            f"{len(streams.speakers)} speakers without names (--speakers FILE gives them); rows of the table "
            "that were not trained are noise"
        )
    if args.for_training:
        training = summary["training"]
        lines.append(f"{args.for_training}: {training['num_updates']} updates. Continue with:")
        lines.append(
            f'fairseq-train DATA --user-dir "$(resynth user-dir)" --restore-file {args.for_training} '
            + shlex.join(training["options"])
        )
    return lines
