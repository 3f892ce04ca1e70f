"""Errors and speed of the F0 methods on speech whose F0 is known, clean and in noise.

usage: python benchmarks/f0_methods.py [--prompts 15] [--snr 10 0] [FOLDER …]

WORLD analyzes each recording and synthesizes it again from a contour of F0, its spectral envelope and its
aperiodicity, so that the F0 of the result is known. The contour is the median of YAAPT, Harvest and SwiftF0
where at least two of them find voice, so that no method profits from having given it; a contour raised by a
fifth shows that the methods follow the synthesis. Frames more than 40 dB below the loudest one are unvoiced.
The noise has the long-term spectrum of the same speech, at the given signal-to-noise ratios in dB.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyworld

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.pitch.extraction import METHODS, extract_f0, num_frames
from fairseq_resynth.measures.f0_errors import align

SPEECH = Path(__file__).resolve().parents[1] / "examples/asterisk/speech"
LEVEL = 40  # dB below the loudest frame, from which on a frame counts as unvoiced


def contour(wav: np.ndarray) -> np.ndarray:
    """(N,) Hz at 200 Hz: the median of YAAPT, Harvest and SwiftF0 where two or three of them find voice."""
    tracks = np.stack([extract_f0(wav, method) for method in ("yaapt", "harvest", "swift")])
    voiced = (tracks > 0).sum(0) >= 2
    median = np.nanmedian(np.where(tracks > 0, tracks, np.nan), axis=0)
    frames = np.pad(wav, F0_HOP)[: (len(voiced) + 2) * F0_HOP]
    energy = np.square(np.resize(frames, (len(voiced) + 2) * F0_HOP)).reshape(-1, F0_HOP).sum(1)
    level = 10 * np.log10(energy[:-2] + energy[1:-1] + 1e-12)[: len(voiced)]
    return np.where(voiced & (level > level.max() - LEVEL), median, 0.0).astype(np.float64)


def synthesize(wav: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """(T,): the recording (T,) with the F0 contour (N,) in Hz, by WORLD."""
    wav = wav.astype(np.float64)
    times = np.arange(len(f0)) * F0_HOP / SAMPLE_RATE
    envelope = pyworld.cheaptrick(wav, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(wav, f0, times, SAMPLE_RATE)
    made = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, 5.0)
    return np.pad(made, (0, max(0, len(wav) - len(made))))[: len(wav)]


def add_noise(wav: np.ndarray, snr: float, generator: np.random.Generator) -> np.ndarray:
    """(T,): the speech with noise of its own long-term spectrum, `snr` in dB."""
    spectrum = np.abs(np.fft.rfft(wav))
    phases = np.exp(2j * np.pi * generator.random(len(spectrum)))
    noise = np.fft.irfft(spectrum * phases, len(wav))
    return wav + noise * np.sqrt(np.square(wav).mean() / np.square(noise).mean()) * 10 ** (
        -snr / 20
    )


def errors(truth: list[np.ndarray], found: list[np.ndarray]) -> list[float]:
    """Gross errors over the frames voiced in both; missed voiced frames; false alarms; voicing errors and
    frames with a gross or voicing error (FFE) over all frames, in %."""
    pairs = [align(*pair) for pair in zip(truth, found, strict=True)]
    reference, estimate = (np.concatenate(tracks) for tracks in zip(*pairs, strict=True))
    both = (reference > 0) & (estimate > 0)
    gross = np.abs(estimate[both] / reference[both] - 1) > 0.2
    missed, false = (estimate == 0)[reference > 0], (estimate > 0)[reference == 0]
    voicing = (estimate > 0) != (reference > 0)
    frame_errors = voicing.copy()
    frame_errors[both] = gross
    return [100 * float(np.mean(part)) for part in (gross, missed, false, voicing, frame_errors)]


def main() -> None:
    """Prints a Markdown table, one line per method and condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[SPEECH], metavar="FOLDER")
    parser.add_argument("--prompts", type=int, default=15, help="number of recordings, at most")
    parser.add_argument("--snr", type=float, nargs="*", default=[10, 0], help="of the noise, in dB")
    args = parser.parse_args()
    paths = sorted(path for folder in args.folders for path in folder.rglob("*.flac"))
    paths = paths[:: max(1, len(paths) // args.prompts)][: args.prompts]
    recordings = [read_audio(path) for path in paths]
    truth = [contour(wav) for wav in recordings]
    clean = [synthesize(*pair) for pair in zip(recordings, truth, strict=True)]
    raised = [synthesize(wav, f0 * 1.2) for wav, f0 in zip(recordings, truth, strict=True)]
    generator = np.random.default_rng(0)
    conditions = {"clean": (truth, clean), "clean, F0 x 1.2": ([f0 * 1.2 for f0 in truth], raised)}
    for snr in args.snr:
        conditions[f"{snr:g} dB"] = (truth, [add_noise(wav, snr, generator) for wav in clean])
    seconds = sum(map(len, recordings)) / SAMPLE_RATE
    print(f"{len(recordings)} recordings, {seconds:.0f} s of speech\n")
    columns = (
        "gross errors % | voiced missed % | false alarms % | voicing errors % | FFE % | x real time"
    )
    print(f"| method | condition | {columns} |\n|---|---|" + "---:|" * 6)
    for method in METHODS:
        for condition, (reference, wavs) in conditions.items():
            start = time.process_time()
            found = [extract_f0(wav, method, 60.0, 500.0) for wav in wavs]
            speed = seconds / (time.process_time() - start)
            assert all(len(f0) == num_frames(len(wav)) for f0, wav in zip(found, wavs, strict=True))
            figures = " | ".join(f"{value:.1f}" for value in errors(reference, found))
            print(f"| {method} | {condition} | {figures} | {speed:.0f} |", flush=True)


if __name__ == "__main__":
    main()
