"""Systems to stand beside one's own: copy-synthesis by vocoders without training, and codecs."""

import dataclasses
import functools
import io
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from fairseq_resynth.data.audio import SAMPLE_RATE, write_audio
from fairseq_resynth.data.audio import resample as resample_to
from fairseq_resynth.data.files import file_hash, read_json, write_json
from fairseq_resynth.evaluation.metric import Recording, importable
from fairseq_resynth.evaluation.pairing import Collection

# returns the waveform, and the bytes of the file and of its packets (0: no bits are counted)
Baseline = Callable[[np.ndarray], tuple[np.ndarray, int, int]]


def griffin_lim(wav: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Mel of 80 bands (n_fft 1024, hop 256) and back by Griffin-Lim, 32 iterations, as in librosa."""
    options = {"sr": SAMPLE_RATE, "n_fft": 1024, "hop_length": 256}
    mel = librosa.feature.melspectrogram(y=wav, n_mels=80, **options)
    with np.errstate(all="ignore"):
        again = librosa.feature.inverse.mel_to_audio(mel, length=len(wav), **options)
    return np.nan_to_num(again).astype(np.float32), 0, 0


def world(wav: np.ndarray) -> tuple[np.ndarray, int, int]:
    """WORLD analysis and synthesis at the same F0 (Morise et al., 2016), F0 by DIO and StoneMask."""
    import pyworld

    samples = wav.astype(np.float64)
    f0, times = pyworld.dio(samples, SAMPLE_RATE, frame_period=5.0)
    f0 = pyworld.stonemask(samples, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(samples, f0, times, SAMPLE_RATE)
    again = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, 5.0)
    return _fit(again.astype(np.float32), len(wav)), 0, 0


def opus(wav: np.ndarray, kilobits: float = 9.0) -> tuple[np.ndarray, int, int]:
    """Opus for speech, variable rate; the paper's is wide band at 9 kbit/s.

    The bytes of the Ogg file count its pages and header, over 200 bytes; the packets' do not.
    """
    import av

    stream = io.BytesIO()
    payload = 0
    with av.open(stream, "w", format="ogg") as container:
        encoder = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        encoder.bit_rate = int(1000 * kilobits)
        encoder.options = {"application": "voip", "vbr": "on"}
        samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*encoder.encode(frame), *encoder.encode(None)]:
            payload += packet.size
            container.mux(packet)
    content = stream.getvalue()
    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    decoded = np.concatenate(frames, axis=1).mean(0).astype(np.float32)
    return _fit(resample_to(decoded, rate), len(wav)), len(content), payload


def codec2(wav: np.ndarray, bits: int = 2400) -> tuple[np.ndarray, int, int]:
    """Codec2 (Rowe, 2011) at 8 kHz, by its programs c2enc and c2dec; the paper's rate is 2400 bit/s."""
    narrow = resample_to(wav, SAMPLE_RATE, 8000)
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, decoded = (Path(folder, name) for name in ("in.raw", "coded.bit", "out.raw"))
        # c2enc drops a last part frame; a frame is 40 ms at the most
        padded = np.pad(np.clip(narrow, -1, 1), (0, 320))
        raw.write_bytes((padded * 32767).astype("<i2").tobytes())
        for program, source, target in (("c2enc", raw, coded), ("c2dec", coded, decoded)):
            command = [program, str(bits), str(source), str(target)]
            subprocess.run(command, check=True, capture_output=True)
        again = np.frombuffer(decoded.read_bytes(), "<i2").astype(np.float32) / 32768
        size = coded.stat().st_size
    return _fit(resample_to(again, 8000), len(wav)), size, size


def _fit(wav: np.ndarray, length: int) -> np.ndarray:
    return np.pad(wav[:length], (0, max(0, length - len(wav))))


BASELINES: dict[str, Callable] = {
    "griffinlim": griffin_lim,
    "world": world,
    "opus": opus,
    "codec2": codec2,
}
_ARGUMENTS = {"opus": ("kilobits", float, 6, 510), "codec2": ("bits", int, 700, 3200)}


@dataclasses.dataclass(frozen=True)
class BaselineChoice:
    """A baseline with its rate: `opus:12` is 12 kbit/s, `codec2:1200` 1200 bit/s."""

    label: str
    kind: str
    argument: float | None = None

    def function(self) -> Baseline:
        """Returns the function with its rate filled in."""
        if self.argument is None:
            return BASELINES[self.kind]
        name, convert, _, _ = _ARGUMENTS[self.kind]
        return functools.partial(BASELINES[self.kind], **{name: convert(self.argument)})

    def missing(self) -> str:
        """Returns what to install, or an empty string."""
        if self.kind == "codec2" and not (shutil.which("c2enc") and shutil.which("c2dec")):
            return "the programs c2enc and c2dec are missing: apt-get install codec2"
        if self.kind == "world" and not importable("pyworld"):
            return "pyworld not installed: pip install pyworld"
        return ""


def parse_baselines(text: str) -> list[BaselineChoice]:
    """Parses `griffinlim,world,opus:9,codec2:2400`.

    Raises:
        ValueError: an unknown name, or a rate that it has not.
    """
    choices = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, rate = item.partition(":")
        if kind not in BASELINES:
            raise ValueError(f"--baselines: no {kind!r}, expected {', '.join(BASELINES)}")
        if rate and kind not in _ARGUMENTS:
            raise ValueError(f"--baselines: {kind} has no rate, found {item!r}")
        argument = _rate(item, kind, rate) if rate else None
        choices.append(BaselineChoice(item.replace(":", "-"), kind, argument))
    return choices


def _rate(item: str, kind: str, rate: str) -> float:
    _, convert, low, high = _ARGUMENTS[kind]
    try:
        value = convert(rate)
    except ValueError:
        value = -1
    if not low <= value <= high:
        raise ValueError(f"--baselines {item}: expected a rate from {low} to {high}")
    return value


def _make(choice: BaselineChoice, source: Path, target: Path) -> dict[str, float] | str:
    """Writes one file; returns its figures, or why it could not be made."""
    try:
        wav = Recording(source).wav
        started = time.perf_counter()
        again, size, payload = choice.function()(wav)
        seconds, elapsed = len(wav) / SAMPLE_RATE, time.perf_counter() - started
        write_audio(target, np.clip(again, -1, 1))
    # librosa, WORLD and the codecs each raise their own errors on odd audio; the others still count
    except Exception as error:
        return f"{choice.label}: {source}: {error}"
    figures = {"given_seconds": seconds, "rtf_decode": elapsed / seconds}
    if size:
        bits = {"bits_per_second": size, "payload_bits_per_second": payload}
        figures |= {name: 8 * count / seconds for name, count in bits.items()}
    return figures


def make_baseline(
    choice: BaselineChoice, references: Mapping[str, Path], folder: Path, workers: int = 1
) -> tuple[Collection, list[str]]:
    """Writes a baseline's version of each reference, reusing those of an earlier run.

    Args:
        choice: not `missing()`.
        references: name -> file.
        folder: for the wavs and `given.json`, their bits and times.
        workers: processes.

    Returns:
        The files, and the reasons of those that could not be made.
    """
    record = folder / "given.json"
    given = read_json(record) if record.is_file() else {}
    targets = {name: folder / f"{name}.wav" for name in references}
    hashes = {name: _hash(path) for name, path in references.items()}
    for name in [name for name in given if given[name].get("source") != hashes.get(name)]:
        del given[name]  # made from another recording of this name
    todo = [name for name in references if name not in given or not targets[name].is_file()]
    failures, arguments = [], [(choice, references[name], targets[name]) for name in todo]
    context = multiprocessing.get_context("spawn")
    with tqdm(total=len(todo), unit="file", desc=choice.label, disable=None) as bar:
        if workers < 2 or len(todo) < 2:
            made = map(_make, *zip(*arguments, strict=True)) if arguments else ()
            _keep(todo, made, given, failures, bar)
        else:
            with ProcessPoolExecutor(workers, context) as pool:
                _keep(todo, pool.map(_make, *zip(*arguments, strict=True)), given, failures, bar)
    for name in todo:
        if name in given:
            given[name]["source"] = hashes[name]
    write_json(record, given)
    figures = {
        name: {key: value for key, value in entry.items() if key != "source"}
        for name, entry in given.items()
    }
    files = {name: path for name, path in targets.items() if name in given}
    return Collection(files, {}, folder, figures), failures


def _hash(path: Path) -> str:
    return file_hash(path) if path.is_file() else ""


def _keep(todo, made, given: dict, failures: list[str], bar: tqdm) -> None:
    for name, figures in zip(todo, made, strict=False):
        if isinstance(figures, str):
            failures.append(figures)
        else:
            given[name] = figures
        bar.update()
