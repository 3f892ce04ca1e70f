"""Options of the verbs that run a content encoder."""

import argparse

import torch

from fairseq_resynth.interop.content_encoder import FEATURE_TYPES


def add_encoder(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds `--feature-type`, `--checkpoint-path`, `--layer`, `--device` and `--workers`."""
    parser.add_argument(
        "--feature-type",
        choices=FEATURE_TYPES,
        required=required,
        help="logmel needs no weights" if required else "default: the k-means file's",
    )
    parser.add_argument(
        "--checkpoint-path",
        metavar="P",
        help="the encoder's weights, as they were released; for hf a folder or a name on the hub",
    )
    parser.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="as GSLM counts: hubert from 1, w2v2 from 0, cpc the number of LSTM layers; others from 1",
    )
    parser.add_argument(
        "--bundle",
        metavar="NAME",
        help="for torchaudio: which of its pipelines, such as HUBERT_BASE",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1 … (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="CPU threads (default: torch's choice)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="seconds of speech encoded together (default: 100 on a GPU; 0, one file at a time, on a CPU)",
    )


def prepare_device(args: argparse.Namespace) -> torch.device:
    """Returns the device that the options name, and sets the number of threads.

    Raises:
        ValueError: no such device on this machine.
    """
    if args.workers > 0:
        torch.set_num_threads(args.workers)
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {args.device} cannot be used here: {reason}") from error
    return device


def batch_samples(args: argparse.Namespace, device: torch.device, sample_rate: int = 16000) -> int:
    """Returns the padded size of a batch in samples; 0: one file at a time."""
    if args.batch_seconds is None:
        return 0 if device.type == "cpu" else 100 * sample_rate
    if args.batch_seconds < 0:
        raise ValueError(f"--batch-seconds is {args.batch_seconds}, expected 0 or more")
    return int(args.batch_seconds * sample_rate)
