"""Live conversion at several delays: agreement of the units, similarity, misheard words, time per step.

usage: python benchmarks/live.py --content-checkpoint WHISPER --recognizer whisper:base [--plot FILE]

Each recording is converted live at each delay, and as a whole. Units are compared with those of the whole
utterance. The similarity is the cosine of Resemblyzer's vectors between the result and the mean of the
target's recordings; dWER counts the words that the recognizer hears otherwise than in the recording. The time
is that of the processor in one thread, without what other programs take from it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.conversion.live import LiveConverter, LiveWindow
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.speaker_vectors import mean_vector
from fairseq_resynth.encoders.speaker import load_encoder
from fairseq_resynth.evaluation.metrics.intelligibility import load_recognizer
from fairseq_resynth.measures.text import error_rates
from fairseq_resynth.resynthesizer import Resynthesizer

SPEECH = Path(__file__).resolve().parents[1] / "examples/asterisk/speech"
# (step, look-ahead, look-back) in seconds
WINDOWS = (
    *((0.08, 0.02, 2.0), (0.08, 0.12, 2.0), (0.16, 0.24, 2.0), (0.16, 0.64, 2.0)),
    *((0.08, 0.32, 2.0), (0.16, 0.24, 1.0), (0.16, 0.24, 4.0)),
)


class Recorder:
    """Keeps the settled units of a converter."""

    def __init__(self, converter: LiveConverter):
        self.units: list[np.ndarray] = []
        self._push = converter._chunks.push_settled
        converter._chunks.push_settled = self.push

    def push(self, settled: int, units: np.ndarray, **pitch: np.ndarray) -> np.ndarray:
        self.units.append(units[:settled])
        return self._push(settled, units, **pitch)


def convert_live(
    converter: LiveConverter, wav: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The result (T,), the units (U,) and the seconds that each step took."""
    recorder, pieces, seconds = Recorder(converter), [], []
    for start in range(0, len(wav), converter.step):
        before = time.thread_time()
        pieces.append(converter.push(wav[start : start + converter.step]))
        seconds.append(time.thread_time() - before)
    pieces.append(converter.flush())
    return np.concatenate(pieces), np.concatenate(recorder.units), seconds


def draw(rows: list[dict], path: str) -> None:
    """The figures over the delay, of the rows with the default look-back."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = rows[1:5]  # the four delays
    whole = next(row for row in rows if row["delay"] is None)
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
    names = {
        "agreement": "same units, %",
        "similarity": "similarity to the target",
        "dwer": "dWER, %",
    }
    for axis, (name, label) in zip(axes, names.items(), strict=True):
        delays = [1000 * row["delay"] for row in drawn]
        axis.plot(delays, [row[name] for row in drawn], "o-", label="live")
        axis.axhline(whole[name], color="gray", linestyle="--", label="whole utterance")
        axis.set(xlabel="delay, ms", title=label, xscale="log")
        axis.set_xticks(delays, [f"{delay:.0f}" for delay in delays])
        axis.minorticks_off()
    axes[0].legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", default=str(SPEECH.parent / "bundle"))
    parser.add_argument("--content-checkpoint", help="weights of the content encoder")
    parser.add_argument("--recognizer", default="pocketsphinx", help="as for resynth evaluate")
    parser.add_argument("--source", default="english", help="folder of the recordings, who speaks")
    parser.add_argument("--target", default="italian", help="target voice, another such folder")
    parser.add_argument("--seconds", type=float, default=30, help="of speech, the longest prompts")
    parser.add_argument("--plot", help="file to draw to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    system = Resynthesizer.from_pretrained(args.bundle, args.content_checkpoint)
    hear = load_recognizer(args.recognizer, "en")
    voice = load_encoder("resemblyzer")
    paths = sorted((SPEECH / args.source).glob("*.flac"), key=lambda path: -path.stat().st_size)
    wavs, total = [], 0.0
    for path in paths:
        if total < args.seconds:
            wavs.append(read_audio(path))
            total += len(wavs[-1]) / 16000
    target = mean_vector(
        [voice.embed(read_audio(path)) for path in sorted((SPEECH / args.target).glob("*.flac"))]
    )
    words, units = [hear(wav) for wav in wavs], [system.units(wav) for wav in wavs]

    def measured(results: list[np.ndarray]) -> dict[str, float]:
        errors = [error_rates(said, hear(wav)) for said, wav in zip(words, results, strict=True)]
        weights = np.array([error["words"] for error in errors])
        return {
            "similarity": round(float(np.mean([target @ voice.embed(wav) for wav in results])), 3),
            "dwer": round(
                100 * float(np.average([error["wer"] for error in errors], weights=weights)), 1
            ),
        }

    print(f"# {len(wavs)} prompts, {total:.1f} s, {sum(len(w.split()) for w in words)} words")
    rows = [{"delay": None, "agreement": 100.0}]
    rows[0] |= measured(
        [system.convert(wav, speaker=args.target, source=args.source) for wav in wavs]
    )
    print(json.dumps(rows[0]), flush=True)
    for window in WINDOWS:
        results, same, count, seconds = [], 0, 0, []
        for wav, whole in zip(wavs, units, strict=True):
            converter = LiveConverter(system, args.target, args.source, window=LiveWindow(*window))
            wav, found, taken = convert_live(converter, wav)
            length = min(len(found), len(whole))
            same, count = same + int((found[:length] == whole[:length]).sum()), count + length
            results.append(wav)
            seconds += taken
        milliseconds = np.quantile(seconds, [0.5, 0.99]) * 1000
        row = dict(zip(("step", "look_ahead", "look_back"), window, strict=True))
        row |= {"delay": round(converter.delay, 3), "agreement": round(100 * same / count, 1)}
        row |= measured(results)
        row |= {"median_ms": round(milliseconds[0], 1), "p99_ms": round(milliseconds[1], 1)}
        row["in_time"] = round(100 * float(np.mean(np.array(seconds) < window[0])), 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
