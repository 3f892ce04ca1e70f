"""Audio that an evaluation makes itself: by a bundle, from coded files, by baselines.

What is known from making a file (its bits, seconds of work) is kept with it as figures, by column.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.references import measure_voice
from fairseq_resynth.data.audio.decoding import AUDIO_SUFFIXES
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.files import atomic_path, check_file_name, write_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.workers import parallel_map
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.evaluation.codecs.baselines import Baseline
from fairseq_resynth.evaluation.metrics.metric import Recording
from fairseq_resynth.evaluation.runs.pairing import Collection, read_folder
from fairseq_resynth.inference.bundle import ENTROPY_FILE
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.resynthesizer import Resynthesizer

CODES = ".rsyn"
Figures = dict[str, float]
# maps a name and the file of this name to (T,) samples at 16 kHz and their figures
Maker = Callable[[str, Path], tuple[np.ndarray, Figures]]
_warm: set[str] = set()  # makers that this process has called


def _timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The result of a call, and the seconds that it took."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def has_coded_files(folder: Path) -> bool:
    """Whether there are `.rsyn` files under a folder, and no audio."""
    suffixes = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    return CODES in suffixes and not suffixes & AUDIO_SUFFIXES


def decode_folder(
    bundle: str | None, folder: Path, outdir: Path, device: str = "cpu"
) -> tuple[Collection, list[str]]:
    """Decodes every `.rsyn` file of a folder with the bundle that made it. Returns the audio with its bits
    and times, and the reasons of the files that failed. Raises ValueError without a bundle or a file that
    can be decoded, FileNotFoundError without a context model."""
    if not bundle:
        raise ValueError(f"{folder} has {CODES} files: give the --bundle that made them")
    codec = SpeechCodec.from_pretrained(bundle, device=device, decode_only=True)

    def decode(name: str, path: Path) -> tuple[np.ndarray, Figures]:
        data = path.read_bytes()
        wav, elapsed = _timed(codec.decode, data)
        return wav, rate | _figures(len(wav) / SAMPLE_RATE, len(data), decode=elapsed)

    rate = _code_rate(codec.resynthesizer.streams)
    files = read_folder(folder, frozenset({CODES})).files
    return _make_all(outdir, files, codec.identity.hex(), decode, "decode")


class _Stopwatch:
    """An encoder that adds up the seconds that it takes."""

    def __init__(self, encoder: Any):
        self._encoder, self.seconds = encoder, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, *arguments: Any) -> Any:
        result, elapsed = _timed(self._encoder.encode, *arguments)
        self.seconds += elapsed
        return result


def resynthesize(
    bundle: str,
    content_checkpoint: str | None,
    reference: Collection,
    outdir: Path,
    device: str = "cpu",
) -> tuple[Collection, list[str]]:
    """Encodes and decodes every reference, through real `.rsyn` files if the bundle has a codec.

    A speaker that the bundle knows normalizes the pitch and speaks; for another, a bundle on speaker vectors
    takes the vector of the recording, whose bits are not counted. Returns the audio with its bits and the
    real-time factor of each stage, and the reasons of the files that failed. Raises FileNotFoundError or
    ValueError if the bundle cannot be loaded, or nothing could be made.
    """
    codec = None
    if (find_bundle(bundle) / ENTROPY_FILE).is_file():
        codec = SpeechCodec.from_pretrained(bundle, content_checkpoint, device)
        model, identity = codec.resynthesizer, codec.identity.hex()
    else:
        model = Resynthesizer.from_pretrained(bundle, content_checkpoint, device)
        identity = model.bundle.identity
    model.encoder, rate = _Stopwatch(model.encoder), _code_rate(model.streams)

    def make(name: str, path: Path) -> tuple[np.ndarray, Figures]:
        wav = Recording(path).wav
        speaker = reference.speakers.get(name)
        speaker = speaker if speaker in model.streams.speakers else None
        voice = speaker
        if speaker is None and model.streams.speaker_dim:
            voice = measure_voice([(name, wav)], model.streams).speaker
        before = model.encoder.seconds
        encoded, encoding = _timed(codec.encode if codec else model.encode, wav, speaker)
        units = model.encoder.seconds - before
        if codec:
            again, decoding = _timed(codec.decode, encoded, voice)
            with atomic_path(outdir / f"{name}{CODES}") as temporary:
                temporary.write_bytes(encoded)
        else:
            (again,), decoding = _timed(model.decode_all, [replace(encoded, speaker=voice)])
        stages = {"units": units, "encode": encoding, "decode": decoding}
        if model.streams.num_f0_codes:
            stages["f0"] = encoding - units
        num_bytes = len(encoded) if codec else 0
        return again, rate | _figures(len(wav) / SAMPLE_RATE, num_bytes, **stages)

    return _make_all(outdir, reference.files, identity, make, "resynthesize")


def _code(name: str, path: Path, baseline: Baseline) -> tuple[np.ndarray, Figures]:
    wav = Recording(path).wav
    coded, elapsed = _timed(baseline.code, wav)
    seconds = len(wav) / SAMPLE_RATE
    figures = _figures(seconds, coded.file_bytes, decode=elapsed)
    if coded.file_bytes:
        figures["payload_bits_per_second"] = 8 * coded.packet_bytes / seconds
    return coded.wav, figures


def make_baseline(
    baseline: Baseline, references: Mapping[str, Path], folder: Path, workers: int = 1
) -> tuple[Collection, list[str]]:
    """Writes the version of each reference, name -> file, by a baseline that is not missing. Returns the
    audio with its bits and times, and the reasons of the files that failed."""
    label, make = baseline.label, partial(_code, baseline=baseline)
    return _make_all(folder, references, label, make, label, True, workers)


def _code_rate(streams: StreamSpec) -> Figures:
    """The rate of codes of fixed length, log2(symbols) bits each, as the Interspeech 2024 challenge on
    discrete units counts it (Chang et al., 2024)."""
    coded = [(streams.unit_hop, streams.num_units), (streams.f0_code_hop, streams.num_f0_codes)]
    bits = (streams.sample_rate / hop * math.log2(number) for hop, number in coded if number)
    return {"code_bits_per_second": sum(bits)}


def _figures(seconds: float, num_bytes: int = 0, **stages: float) -> Figures:
    """The real-time factor of each stage from its seconds of work, and the rate."""
    figures = {f"rtf_{stage}": elapsed / seconds for stage, elapsed in stages.items()}
    figures |= {"bits_per_second": 8 * num_bytes / seconds} if num_bytes else {}
    return {"given_seconds": seconds, **figures}


def _make_all(
    folder: Path,
    sources: Mapping[str, Path],
    identity: str,
    make: Maker,
    label: str,
    is_baseline: bool = False,
    workers: int = 1,
) -> tuple[Collection, list[str]]:
    """Makes an audio file of each source, except those that an earlier run made in the same way. Raises
    ValueError if none could be made, but not for a baseline, without which the evaluation goes on; and for a
    name that no file can have."""
    # librosa, WORLD and the codecs each raise their own errors on odd audio; the others still count
    errors = Exception if is_baseline else (OSError, ValueError)
    figures: dict[str, Figures] = {}
    keys, failures = {}, []
    write = partial(_write, folder=folder, make=make, identity=identity, errors=errors)
    for name in sources:
        check_file_name(name, CODES)
    with Record(folder) as record:
        for name, source in sources.items():
            # a source that does not exist is reported when it is read
            keys[name] = record.key(identity, source if source.is_file() else None)
            if (found := record.find(f"{name}.wav", keys[name])) is not None:
                figures[name] = found
        jobs = [job for job in sources.items() if job[0] not in figures]
        results = parallel_map(write, jobs, workers)
        try:
            for (name, _), result in tqdm(
                results, total=len(jobs), unit="file", desc=label, disable=None
            ):
                if isinstance(result, str):
                    failures.append(f"{label}: {name}: {result}")
                else:
                    record.add(f"{name}.wav", keys[name], result)
                    figures[name] = result
        finally:
            write_json(folder / "given.json", figures)
    if not figures and not is_baseline:
        raise ValueError(f"no file could be made: {failures[0]}")
    files = {name: folder / f"{name}.wav" for name in sorted(figures)}
    return Collection(files, {}, folder, figures), sorted(failures)


def _write(
    job: tuple[str, Path], folder: Path, make: Maker, identity: str, errors: Any
) -> Figures | str:
    """Writes the file of one (name, source); returns its figures, or why it could not be made."""
    name, source = job
    try:
        if identity not in _warm:
            make(name, source)  # not timed: the first call in a process imports and compiles
            _warm.add(identity)
        wav, figures = make(name, source)
    except errors as error:
        return str(error)
    write_audio(folder / f"{name}.wav", np.clip(wav, -1, 1))
    return figures
