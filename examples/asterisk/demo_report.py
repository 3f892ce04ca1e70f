"""Figures and page of the demo: held-out utterances, real beside resynthesised and converted.

usage: demo_report.py DATA BUNDLE RESYNTHESISED CONVERTED OUTDIR [--trained WAVS] [--json]

Prints the mel L1 distance of the resynthesis beside that of two ways of being wrong: the speaker's mean
spectrum, and the units of another utterance. Exits with 1 when the resynthesis is not far below both.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.pitch.extraction import extract_f0
from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.evaluation.report.page import write_gallery
from fairseq_resynth.inference.bundle import load_bundle
from fairseq_resynth.inference.chunks import decode_all
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.inference.jobs import Job, read_jobs
from fairseq_resynth.measures.f0_errors import f0_errors
from fairseq_resynth.modules.losses import LogMelSpectrogram

FAR_BELOW = 0.65  # of the distance of the mean spectrum; measured: about 0.5
log_mel = LogMelSpectrogram()


def mel(wav: np.ndarray) -> np.ndarray:
    """Returns the (80, M) log-mel spectrogram of (T,) samples."""
    return log_mel(torch.from_numpy(wav)[None, None])[0].numpy()


def mel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean absolute difference of two (80, M) spectrograms over their common frames."""
    frames = min(one.shape[1], other.shape[1])
    return float(np.abs(one[:, :frames] - other[:, :frames]).mean())


def mean_spectra(data: Path) -> dict[str, np.ndarray]:
    """Returns each training speaker's (80, 1) mean log-mel spectrum."""
    manifest = read_manifest(data / "train.tsv")
    names = (data / "train.speaker").read_text().split()
    frames: dict[str, list[np.ndarray]] = {}
    for row, name in enumerate(names):
        frames.setdefault(name, []).append(mel(read_audio(manifest.path(row))))
    return {name: np.concatenate(parts, 1).mean(1, keepdims=True) for name, parts in frames.items()}


def wrong_utterance(job: Job, other: Job) -> Utterance:
    """Returns job's pitch and speaker with the units of another utterance, repeated to its length."""
    units = np.resize(other.speech.units, len(job.speech.units))
    return replace(job.speech, units=units)


def evaluate(data: Path, bundle_dir: Path, resynthesised: Path) -> dict[str, float]:
    """Returns the figures of the held-out utterances."""
    bundle = load_bundle(bundle_dir)
    decoder = UnitDecoder(bundle.generator, bundle.streams)
    jobs = read_jobs(data, bundle.streams)
    spectra = mean_spectra(data)
    others = jobs[1:] + jobs[:1]
    wrong = decode_all(
        decoder, [wrong_utterance(job, other) for job, other in zip(jobs, others, strict=True)]
    )
    rows, tracks = [], []
    for job, wrong_wav in zip(jobs, wrong, strict=True):
        real = read_audio(job.reference)
        fake = read_audio(resynthesised / f"{job.name}.wav")
        real_mel = mel(real)
        mean = np.repeat(spectra[job.speech.speaker], real_mel.shape[1], 1)
        distances = [mel(fake), mean, mel(wrong_wav)]
        rows.append([mel_distance(real_mel, other) for other in distances])
        frames = -(-len(fake) // 80)
        tracks.append((extract_f0(real)[:frames], extract_f0(fake)))
    reference, estimate = (np.concatenate(side) for side in zip(*tracks, strict=True))
    resynthesis, mean_spectrum, wrong_units = np.mean(rows, axis=0)
    return {
        "utterances": len(jobs),
        "mel_l1": float(resynthesis),
        "mel_l1_mean_spectrum": float(mean_spectrum),
        "mel_l1_wrong_units": float(wrong_units),
        **f0_errors(reference, estimate),
        "bits_per_second": bits_per_second(bundle.streams),
    }


def bits_per_second(streams) -> float:
    """Returns the rate of the streams at a fixed number of bits a code, as the paper counts them."""
    units = streams.sample_rate / streams.unit_hop * np.ceil(np.log2(streams.num_units))
    codes = streams.sample_rate / streams.f0_code_hop * np.ceil(np.log2(streams.num_f0_codes))
    return float(units + codes)


def page_rows(
    data: Path, bundle_dir: Path, resynthesised: Path, converted: Path, words: str = ""
) -> list[tuple[str, dict[str, Path]]]:
    """Returns a row an utterance: its recording, its resynthesis, and every other voice."""
    streams = load_bundle(bundle_dir).streams
    rows = []
    for job in read_jobs(data, streams):
        columns = {"recording": job.reference, "resynthesis": resynthesised / f"{job.name}.wav"}
        for voice in streams.speakers:
            path = converted / f"{job.name}_{voice}.wav"
            if path.is_file():
                columns[f"as {voice}"] = path
        rows.append((words + job.name, columns))
    return rows


def write_page(rows: list[tuple[str, dict[str, Path]]], page: Path) -> None:
    """Writes the page to listen to."""
    introduction = (
        "Recordings that the model never saw, what it makes of their units, pitch codes and speaker, and the "
        "same in the other voices. Rows that begin with “trained” are the bundle of this repository, "
        "80 minutes of training on all of Asterisk's prompts; the others are what this demo has trained."
    )
    title = "Resynthesis of held-out utterances"
    write_gallery(page, title, rows, introduction, embed=True, f0_of=lambda wav, _: extract_f0(wav))


def main() -> int:
    """Prints the figures, writes figures.json and index.html."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "bundle", "resynthesised", "converted", "outdir"):
        parser.add_argument(name, type=Path)
    parser.add_argument(
        "--trained", type=Path, help="what examples/asterisk/bundle says of held_out/"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    figures = evaluate(args.data, args.bundle, args.resynthesised)
    write_json(args.outdir / "figures.json", figures)
    page = args.outdir / "index.html"
    rows = page_rows(args.data, args.bundle, args.resynthesised, args.converted)
    if args.trained:
        here, wavs = Path(__file__).parent, args.trained
        rows = page_rows(here / "held_out", here / "bundle", wavs, wavs, "trained: ") + rows
    write_page(rows, page)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(
                f"{name:>24}  {value:.3f}" if isinstance(value, float) else f"{name:>24}  {value}"
            )
    limit = FAR_BELOW * min(figures["mel_l1_mean_spectrum"], figures["mel_l1_wrong_units"])
    if figures["mel_l1"] > limit:
        print(
            f"FAILED: the resynthesis' mel L1 is {figures['mel_l1']:.3f}, expected at most {limit:.3f}: "
            "the model has not learned to follow the units.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
