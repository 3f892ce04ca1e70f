"""Measurements and page of the demo: held-out recordings, their resynthesis and conversions.

usage: demo_report.py DATA BUNDLE RESYNTHESIZED CONVERTED OUTDIR [--trained WAVS] [--log FILE] [--json]

Prints the mel L1 distance of the resynthesis, and for comparison that of two wrong results: the mean spectrum
of the speaker, and the units of another utterance. Exits with 1 if the resynthesis is not far below both,
unless the training of the log made too few updates for that.
"""

import argparse
import json
import re
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
from fairseq_resynth.inference.decoder import UnitDecoder, decode_all
from fairseq_resynth.inference.synthesis import Job, read_jobs
from fairseq_resynth.measures.f0_errors import f0_errors
from fairseq_resynth.modules.losses import LogMelSpectrogram

CHECKED_FROM = 1000  # updates; a slow machine makes fewer in the demo's minutes
FAR_BELOW = 0.65  # relative to the better of the two; about 0.5 was measured
log_mel = LogMelSpectrogram()


def mel(wav: np.ndarray) -> np.ndarray:
    """The (80, M) log-mel spectrogram of (T,) samples."""
    return log_mel(torch.from_numpy(wav)[None, None])[0].numpy()


def mel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference of two (80, M) spectrograms over their common frames."""
    frames = min(one.shape[1], other.shape[1])
    return float(np.abs(one[:, :frames] - other[:, :frames]).mean())


def mean_spectra(data: Path) -> dict[str, np.ndarray]:
    """The (80, 1) mean log-mel spectrum of each training speaker."""
    manifest = read_manifest(data / "train.tsv")
    names = (data / "train.speaker").read_text().split()
    frames: dict[str, list[np.ndarray]] = {}
    for row, name in enumerate(names):
        frames.setdefault(name, []).append(mel(read_audio(manifest.path(row))))
    return {name: np.concatenate(parts, 1).mean(1, keepdims=True) for name, parts in frames.items()}


def wrong_utterance(job: Job, other: Job) -> Utterance:
    """The pitch and speaker of `job` with the units of another utterance, repeated to its length."""
    units = np.resize(other.speech.units, len(job.speech.units))
    return replace(job.speech, units=units)


def evaluate(data: Path, bundle_dir: Path, resynthesized: Path) -> dict[str, float]:
    """The measurements on the held-out utterances."""
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
        fake = read_audio(resynthesized / f"{job.name}.wav")
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
    """The rate of the streams with a fixed number of bits per code, as the paper counts it."""
    units = streams.sample_rate / streams.unit_hop * np.ceil(np.log2(streams.num_units))
    codes = streams.sample_rate / streams.f0_code_hop * np.ceil(np.log2(streams.num_f0_codes))
    return float(units + codes)


def page_rows(
    data: Path, bundle_dir: Path, resynthesized: Path, converted: Path, words: str = ""
) -> list[tuple[str, dict[str, Path]]]:
    """One row per utterance: the recording, the resynthesis, and every other voice."""
    streams = load_bundle(bundle_dir).streams
    rows = []
    for job in read_jobs(data, streams):
        columns = {"recording": job.reference, "resynthesis": resynthesized / f"{job.name}.wav"}
        for voice in streams.speakers:
            path = converted / f"{job.name}_{voice}.wav"
            if path.is_file():
                columns[f"as {voice}"] = path
        rows.append((words + job.name, columns))
    return rows


def write_page(rows: list[tuple[str, dict[str, Path]]], page: Path) -> None:
    """Writes the page to listen to."""
    introduction = (
        "Recordings that the model never saw, their resynthesis from units, pitch codes and speaker, and "
        "the same in the other voices. Rows that begin with “trained” are from the bundle of this "
        "repository, trained for 80 minutes on all of Asterisk's prompts; the others are from the model "
        "of this demo."
    )
    title = "Resynthesis of held-out utterances"
    write_gallery(page, title, rows, introduction, embed=True, f0_of=lambda wav, _: extract_f0(wav))


def main() -> int:
    """Prints the measurements, and writes figures.json and index.html."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "bundle", "resynthesized", "converted", "outdir"):
        parser.add_argument(name, type=Path)
    parser.add_argument(
        "--trained", type=Path, help="speech of examples/asterisk/bundle from held_out/"
    )
    parser.add_argument("--log", type=Path, help="log of the vocoder's training by fairseq")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    figures = evaluate(args.data, args.bundle, args.resynthesized)
    write_json(args.outdir / "figures.json", figures)
    page = args.outdir / "index.html"
    rows = page_rows(args.data, args.bundle, args.resynthesized, args.converted)
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
    updates = re.findall(r"num_updates\W+(\d+)", args.log.read_text()) if args.log else []
    if updates and int(updates[-1]) < CHECKED_FROM:
        print(f"not checked: {updates[-1]} updates, and the check needs {CHECKED_FROM} or more")
        return 0
    limit = FAR_BELOW * min(figures["mel_l1_mean_spectrum"], figures["mel_l1_wrong_units"])
    if figures["mel_l1"] > limit:
        print(
            f"FAILED: the mel L1 of the resynthesis is {figures['mel_l1']:.3f}, expected at most "
            f"{limit:.3f}: the model has not learned to follow the units.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
