"""Speech from a bundle, timed by stage, and from `.rsyn` files, with their bits."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import AUDIO_SUFFIXES, write_audio
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.evaluation.metrics.metric import Recording
from fairseq_resynth.evaluation.runs.generated_files import Figures, GeneratedFiles, rate_figures
from fairseq_resynth.evaluation.runs.pairing import Collection, read_folder

CODES = ".rsyn"
ENTROPY = "entropy.safetensors"
Made = tuple[np.ndarray, Figures]


def holds_codes(folder: Path) -> bool:
    """Tells whether there are `.rsyn` files under a folder, and no audio."""
    suffixes = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    return CODES in suffixes and not suffixes & AUDIO_SUFFIXES


class _Stopwatch:
    """An encoder that adds up the seconds it takes."""

    def __init__(self, encoder: Any):
        self._encoder, self.seconds = encoder, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, *arguments: Any) -> Any:
        """Encodes as the encoder does."""
        started = time.perf_counter()
        try:
            return self._encoder.encode(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


def decode_folder(bundle: str | None, folder: Path, outdir: Path) -> tuple[Collection, list[str]]:
    """Decodes every `.rsyn` file of a folder.

    Args:
        bundle: that the files were made with.
        folder: of the files.
        outdir: for the wavs, see `GeneratedFiles`.

    Returns:
        The wavs with their bits and times, and the reasons of those that failed.

    Raises:
        ValueError: no bundle is given, or no file could be decoded.
        FileNotFoundError: it has no context model.
    """
    if not bundle:
        raise ValueError(f"{folder} holds {CODES} files: give the --bundle that made them")
    from fairseq_resynth.codec.speech_codec import SpeechCodec

    codec = SpeechCodec.from_pretrained(bundle, decode_only=True)
    files = read_folder(folder, frozenset({CODES})).files

    def decode(name: str) -> Made:
        data = files[name].read_bytes()
        started = time.perf_counter()
        wav = codec.decode(data)
        elapsed, seconds = time.perf_counter() - started, len(wav) / SAMPLE_RATE
        figures = {"given_seconds": seconds, "rtf_decode": elapsed / seconds}
        return wav, figures | rate_figures(len(data), seconds)

    return _make_all(GeneratedFiles(outdir, files, codec.identity.hex()), decode, "decode")


def resynthesise(
    bundle: str, content_checkpoint: str | None, reference: Collection, outdir: Path
) -> tuple[Collection, list[str]]:
    """Encodes and decodes every reference; through real `.rsyn` bytes if the bundle has a codec.

    Args:
        bundle: a folder.
        content_checkpoint: of its content encoder, see `Resynthesizer.from_pretrained`.
        reference: recordings; a speaker that the bundle knows normalises the pitch and speaks.
        outdir: for the wavs, see `GeneratedFiles`, and the `.rsyn` files beside them.

    Returns:
        The wavs with their bits and the real-time factor of each stage, and the reasons of those
        that failed.

    Raises:
        FileNotFoundError, ValueError: the bundle cannot be loaded, or nothing could be made.
    """
    codec, model = _load(bundle, content_checkpoint)
    model.encoder = _Stopwatch(model.encoder)

    def make(name: str) -> Made:
        wav = Recording(reference.files[name]).wav
        speaker = reference.speakers.get(name)
        speaker = speaker if speaker in model.streams.speakers else None
        before, started = model.encoder.seconds, time.perf_counter()
        encoded = codec.encode(wav, speaker) if codec else model.encode(wav, speaker)
        encoding, units = time.perf_counter() - started, model.encoder.seconds - before
        started = time.perf_counter()
        again = codec.decode(encoded) if codec else model.decode_all([encoded])[0]
        decoding, seconds = time.perf_counter() - started, len(wav) / SAMPLE_RATE
        figures = {"given_seconds": seconds, "rtf_units": units / seconds}
        figures |= {"rtf_encode": encoding / seconds, "rtf_decode": decoding / seconds}
        if model.streams.num_f0_codes:
            figures["rtf_f0"] = (encoding - units) / seconds
        if codec:
            with atomic_path(outdir / f"{name}{CODES}") as temporary:
                temporary.write_bytes(encoded)
            figures |= rate_figures(len(encoded), seconds)
        return again, figures

    identity = codec.identity.hex() if codec else model.bundle.identity
    return _make_all(GeneratedFiles(outdir, reference.files, identity), make, "resynthesise")


def _load(bundle: str, content_checkpoint: str | None) -> tuple[Any, Any]:
    if (Path(bundle) / ENTROPY).is_file():
        from fairseq_resynth.codec.speech_codec import SpeechCodec

        codec = SpeechCodec.from_pretrained(bundle, content_checkpoint)
        return codec, codec.resynthesizer
    from fairseq_resynth.resynthesizer import Resynthesizer

    return None, Resynthesizer.from_pretrained(bundle, content_checkpoint)


def _make_all(
    made: GeneratedFiles, make: Callable[[str], Made], label: str
) -> tuple[Collection, list[str]]:
    failures = []
    try:
        for name in tqdm(made.todo, unit="file", desc=label, disable=None):
            try:
                if name == made.todo[0]:
                    make(name)  # not timed: the first call imports and compiles
                wav, figures = make(name)
            except (OSError, ValueError) as error:
                failures.append(f"{label}: {name}: {error}")
                continue
            write_audio(made.path(name), np.clip(wav, -1, 1))
            made.keep(name, figures)
    finally:
        collection = made.finish()
    if not collection.files:
        raise ValueError(f"no file could be made: {failures[0]}")
    return collection, failures
