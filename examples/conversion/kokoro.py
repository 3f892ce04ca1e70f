"""Synthesize sentences in Kokoro's English voices: 24 kHz FLAC, transcripts, lists of the splits.

    python examples/conversion/kokoro.py MODEL OUT [--voices af_heart,bm_lewis] [--train 7] [--test 2]

MODEL is the folder that fetch.sh writes. OUT gets `{split}/VOICE/NAME.flac`, `transcripts.tsv` and
`{split}.txt`. Every voice says the same test sentences, which no other split contains; the sentences of train
and valid are distributed over the voices. The title of a file is its sentence: the same command continues an
interrupted run, and synthesizes again where the text has changed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from fairseq_resynth.constants import SPLITS
from fairseq_resynth.data.storage.files import atomic_path, write_text
from fairseq_resynth.data.storage.workers import progress

RATE = 24000  # Hz, the rate of Kokoro
STYLE_SHAPE = (510, 1, 256)  # one style for each number of phonemes
Say = Callable[[str, str], np.ndarray]  # (text, voice) -> (T,) float at RATE


@dataclass(frozen=True)
class Utterance:
    """A sentence in a voice; `name` is the path of its file without the suffix."""

    name: str
    voice: str
    text: str


def read_sentences(path: Path) -> dict[str, list[str]]:
    """Reads lines of `split<TAB>sentence`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A line has another form, or a sentence occurs twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected lines of split<TAB>sentence")
    sentences: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        split, _, text = line.partition("\t")
        if split not in SPLITS or not text.strip():
            raise ValueError(
                f"{path}:{number}: expected train, valid or test, a tab and a sentence, found {line!r}"
            )
        if text in seen:
            raise ValueError(f"{path}:{number}: repeats the sentence of line {seen[text]}")
        seen[text] = number
        sentences[split].append(text.strip())
    return sentences


def plan(
    sentences: Mapping[str, Sequence[str]], voices: Sequence[str], counts: Mapping[str, int]
) -> list[Utterance]:
    """The utterances to synthesize.

    Args:
        sentences: The sentences of each split.
        voices: Sorted names.
        counts: The number of sentences per voice in each split.

    Returns:
        Utterances, those of test first, and each split in rounds over the voices, so that an
        interrupted run has speech of all voices.

    Raises:
        ValueError: A count is larger than the number of sentences.
    """
    for split, count in counts.items():
        if not 1 <= count <= len(sentences[split]):
            raise ValueError(
                f"--{split} {count}: expected 1 to {len(sentences[split])}, the sentences of {split}"
            )
    chosen = []
    for split in reversed(SPLITS):
        texts = sentences[split]
        # independent of the count, so that another count changes only how many there are
        step = 0 if split == "test" else max(1, len(texts) // len(voices))
        for turn in range(counts[split]):
            for index, voice in enumerate(voices):
                number = (index * step + turn) % len(texts)
                name = f"{split}/{voice}/{split}_{number + 1:03}"
                chosen.append(Utterance(name, voice, texts[number]))
    return chosen


def is_said(path: Path, text: str) -> bool:
    """Whether the file exists and contains this sentence."""
    if not path.is_file():
        return False
    with soundfile.SoundFile(path) as file:
        return file.title == text


def write_speech(path: Path, utterance: Utterance, wav: np.ndarray) -> None:
    """Writes 16-bit FLAC at 24 kHz, scaled only if it would clip, with the text as its title.

    Raises:
        ValueError: The speech is silent.
    """
    peak = float(np.abs(wav).max(initial=0))
    if not np.isfinite(peak) or peak == 0:
        raise ValueError(
            f"{utterance.name}: the synthesizer returned silence for {utterance.text!r}"
        )
    with atomic_path(path) as temporary, soundfile.SoundFile(temporary, "w", RATE, 1) as file:
        file.title, file.artist = utterance.text, utterance.voice
        file.write(wav / max(peak, 1.0))


def say_all(utterances: Iterable[Utterance], out: Path, say: Say) -> dict[str, float]:
    """Synthesizes the utterances that do not exist yet.

    Returns:
        The numbers of files `written` and `reused`, the `seconds` of new speech and the `elapsed` seconds.
    """
    utterances = list(utterances)
    left = [u for u in utterances if not is_said(out / f"{u.name}.flac", u.text)]
    started, samples = time.perf_counter(), 0
    for utterance in progress(left, len(utterances), "say", len(utterances) - len(left)):
        wav = say(utterance.text, utterance.voice)
        write_speech(out / f"{utterance.name}.flac", utterance, wav)
        samples += len(wav)
    elapsed = time.perf_counter() - started
    reused = len(utterances) - len(left)
    return {"written": len(left), "reused": reused, "seconds": samples / RATE, "elapsed": elapsed}


def write_lists(utterances: Iterable[Utterance], out: Path) -> None:
    """Writes `transcripts.tsv` (name<TAB>text) and a list of names for each split."""
    ordered = sorted(utterances, key=lambda utterance: utterance.name)
    write_text(out / "transcripts.tsv", "".join(f"{u.name}\t{u.text}\n" for u in ordered))
    for split in SPLITS:
        names = [u.name for u in ordered if u.name.startswith(f"{split}/")]
        write_text(out / f"{split}.txt", "".join(f"{name}\n" for name in names))


def find_voices(model: Path, wanted: str) -> list[str]:
    """The English voices of the model, or those of a comma-separated list.

    Raises:
        FileNotFoundError: The folder contains no model.
        ValueError: The model does not have this voice.
    """
    known = sorted(path.stem for path in (model / "voices").glob("[ab][fm]_*.bin"))
    if not known or not (model / "model.onnx").is_file():
        raise FileNotFoundError(
            f"{model} contains no Kokoro model: run bash examples/conversion/fetch.sh"
        )
    voices = sorted({voice for voice in wanted.split(",") if voice}) or known
    if unknown := [voice for voice in voices if voice not in known]:
        raise ValueError(f"--voices {', '.join(unknown)}: expected some of {', '.join(known)}")
    return voices


def load_kokoro(model: Path, voices: Sequence[str], threads: int) -> Say:
    """Loads the model and the styles of the voices.

    Raises:
        ValueError: kokoro-onnx is not installed, or the file of a voice has an unexpected size.
    """
    try:
        import onnxruntime
        from kokoro_onnx import Kokoro
    except ImportError as error:
        raise ValueError(f"{error}: run pip install 'fairseq_resynth[kokoro]'") from error
    styles = {}
    for voice in voices:
        style = np.fromfile(model / "voices" / f"{voice}.bin", dtype="<f4")
        if style.size != np.prod(STYLE_SHAPE):
            raise ValueError(f"{voice}.bin has {style.size} numbers, expected {STYLE_SHAPE}")
        styles[voice] = style.reshape(STYLE_SHAPE)
    with atomic_path(model / "voices.npz") as temporary:
        np.savez(temporary, **styles)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(model / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    kokoro = Kokoro.from_session(session, str(model / "voices.npz"))

    def say(text: str, voice: str) -> np.ndarray:
        language = "en-us" if voice.startswith("a") else "en-gb"
        return kokoro.create(text, voice, lang=language)[0]

    return say


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sentences", type=Path, default=Path(__file__).with_name("sentences.txt"))
    parser.add_argument("--voices", default="", help="separated by commas (all 28)")
    for split, count in (("train", 7), ("valid", 1), ("test", 2)):
        parser.add_argument(
            f"--{split}", type=int, default=count, help="sentences per voice (%(default)s)"
        )
    parser.add_argument("--threads", type=int, default=0, help="0: all cores (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Synthesizes everything and prints how much it was."""
    args = parse_arguments()
    try:
        voices = find_voices(args.model, args.voices)
        counts = {split: getattr(args, split) for split in SPLITS}
        utterances = plan(read_sentences(args.sentences), voices, counts)
        write_lists(utterances, args.out)
        done = say_all(utterances, args.out, load_kokoro(args.model, voices, args.threads))
    except (ValueError, OSError) as error:
        print(f"kokoro.py: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{len(voices)} voices: {done['written']} files written to {args.out}, {done['reused']} reused; "
        f"{done['seconds']:.1f} s of speech in {done['elapsed']:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
