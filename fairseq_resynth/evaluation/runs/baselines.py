"""Systems to stand beside one's own: copy-synthesis by vocoders without training, and codecs."""

import dataclasses
import functools
import io
import itertools
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import load_any_audio, resample, write_audio
from fairseq_resynth.data.audio.files import resample as resample_to
from fairseq_resynth.evaluation.metrics.metric import Recording, importable
from fairseq_resynth.evaluation.runs.generated_files import MadeFiles, rate_figures
from fairseq_resynth.evaluation.runs.pairing import Collection

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
    """Codec2 (Rowe, 2011) at 8 kHz, by its programs c2enc and c2dec; the paper's rate is 2400 bit/s.

    Its delay, measured as 20 ms (35 ms at 700 bit/s), is taken out: metrics compare at equal times.
    """
    narrow = resample_to(wav, SAMPLE_RATE, 8000)
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, decoded = (Path(folder, name) for name in ("in.raw", "coded.bit", "out.raw"))
        # c2enc drops a last part frame; a frame is 40 ms at the most
        padded = np.pad(np.clip(narrow, -1, 1), (0, 320))
        raw.write_bytes((padded * 32767).astype("<i2").tobytes())
        for program, source, target in (("c2enc", raw, coded), ("c2dec", coded, decoded)):
            mode = "700C" if bits == 700 else str(bits)
            command = [program, mode, str(source), str(target)]
            subprocess.run(command, check=True, capture_output=True)
        again = np.frombuffer(decoded.read_bytes(), "<i2").astype(np.float32) / 32768
        size = coded.stat().st_size
    delay = 280 if bits == 700 else 160  # samples at 8 kHz
    return _fit(resample_to(again[delay:], 8000), len(wav)), size, size


def _fit(wav: np.ndarray, length: int) -> np.ndarray:
    return np.pad(wav[:length], (0, max(0, length - len(wav))))


BASELINES: dict[str, Callable] = {
    "griffinlim": griffin_lim,
    "world": world,
    "opus": opus,
    "codec2": codec2,
}
CODEC2_RATES = (700, 1200, 1300, 1400, 1600, 2400, 3200)  # bit/s
_ARGUMENTS = {"opus": ("kilobits", float), "codec2": ("bits", int)}


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
        name, convert = _ARGUMENTS[self.kind]
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
    try:
        value = _ARGUMENTS[kind][1](rate)
    except ValueError:
        value = 0
    if kind == "codec2" and value not in CODEC2_RATES:
        known = ", ".join(map(str, CODEC2_RATES))
        raise ValueError(f"--baselines {item}: expected one of {known} bit/s")
    if kind == "opus" and not 6 <= value <= 510:
        raise ValueError(f"--baselines {item}: expected a rate from 6 to 510 kbit/s")
    return value


@functools.cache
def _warm_up(choice: BaselineChoice) -> None:
    """Runs a baseline once a process before it is timed: the first call imports and compiles."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
    choice.function()(noise.astype(np.float32))


def _make(choice: BaselineChoice, source: Path, target: Path) -> dict[str, float] | str:
    """Writes one file; returns its figures, or why it could not be made."""
    try:
        wav = Recording(source).wav
        _warm_up(choice)
        started = time.perf_counter()
        again, size, payload = choice.function()(wav)
        seconds, elapsed = len(wav) / SAMPLE_RATE, time.perf_counter() - started
        write_audio(target, np.clip(again, -1, 1))
    # librosa, WORLD and the codecs each raise their own errors on odd audio; the others still count
    except Exception as error:
        return f"{choice.label}: {source}: {error}"
    figures = {"given_seconds": seconds, "rtf_decode": elapsed / seconds}
    return figures | (rate_figures(size, seconds, payload) if size else {})


def make_baseline(
    choice: BaselineChoice, references: Mapping[str, Path], folder: Path, workers: int = 1
) -> tuple[Collection, list[str]]:
    """Writes a baseline's version of each reference, reusing those of an earlier run.

    Args:
        choice: not `missing()`.
        references: name -> file.
        folder: for the wavs, see `MadeFiles`.
        workers: processes.

    Returns:
        The files, and the reasons of those that could not be made.
    """
    made = MadeFiles(folder, references, choice.label)
    arguments = [(choice, references[name], made.path(name)) for name in made.todo]
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    try:
        with tqdm(total=len(arguments), unit="file", desc=choice.label, disable=None) as bar:
            if workers < 2 or len(arguments) < 2:
                _keep(made, itertools.starmap(_make, arguments), failures, bar)
            else:
                with ProcessPoolExecutor(workers, context) as pool:
                    _keep(made, pool.map(_make, *zip(*arguments, strict=True)), failures, bar)
    finally:
        collection = made.finish()
    return collection, failures


def _keep(
    made: MadeFiles, results: Iterable[dict[str, float] | str], failures: list[str], bar: tqdm
) -> None:
    for name, figures in zip(list(made.todo), results, strict=True):
        if isinstance(figures, str):
            failures.append(figures)
        else:
            made.keep(name, figures)
        bar.update()


DEFAULT = "opus:6,opus:9,opus:12,codec2:700,codec2:1200,codec2:1600,codec2:2400,speex:4"
NARROW = 8000  # Hz
Coder = Callable[[np.ndarray], tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Anchor:
    """A codec at one rate.

    Attributes:
        family: points of one family are joined in the plot.
        label: of the point.
        code: maps (T,) float32 at 16 kHz to the decoded (T,) and the bytes of its packets, headers left out.
        missing: what to install, or an empty string.
    """

    family: str
    label: str
    code: Coder
    missing: str = ""


def speex(wav: np.ndarray, kilobits: float = 4.0) -> tuple[np.ndarray, int]:
    """Speex, narrow band (Valin, 2006), by its programs; the paper's rate is 4 kbit/s."""
    import av

    narrow = np.pad(np.clip(resample(wav, SAMPLE_RATE, NARROW), -1, 1), (0, 480))
    with tempfile.TemporaryDirectory() as folder:
        source, coded, decoded = (Path(folder, name) for name in ("in.wav", "a.spx", "out.wav"))
        write_audio(source, narrow, NARROW)
        rate = ["--narrowband", "--bitrate", str(int(1000 * kilobits))]
        for command in (["speexenc", *rate, source, coded], ["speexdec", coded, decoded]):
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
        with av.open(str(coded)) as container:
            size = sum(packet.size for packet in container.demux(audio=0))
        again, rate = load_any_audio(decoded)
    return fit(resample(again, rate, SAMPLE_RATE), len(wav)), size


def encodec(wav: np.ndarray, model, bandwidth: float) -> tuple[np.ndarray, int]:
    """EnCodec (Défossez et al., 2022) by `transformers`, without its entropy coder.

    Args:
        wav: (T,) float32 at 16 kHz.
        model: `transformers.EncodecModel`.
        bandwidth: kbit/s, one of the model's.
    """
    import torch

    rate = model.config.sampling_rate
    inputs = torch.from_numpy(resample(wav, SAMPLE_RATE, rate))[None, None]
    with torch.inference_mode():
        coded = model.encode(inputs, bandwidth=bandwidth)
        decoded = model.decode(coded.audio_codes, coded.audio_scales)[0]
    bits = coded.audio_codes.numel() * int(model.config.codebook_size - 1).bit_length()
    return fit(resample(decoded[0, 0].numpy(), rate, SAMPLE_RATE), len(wav)), -(-bits // 8)


def fit(wav: np.ndarray, length: int) -> np.ndarray:
    """Cuts or pads (n,) to (length,)."""
    return np.pad(wav[:length], (0, max(0, length - len(wav)))).astype(np.float32)


def parse_anchors(text: str, encodec_folder: str | Path | None = None) -> list[Anchor]:
    """Parses `opus:6,codec2:700,speex:4`, and adds EnCodec at its lower rates when a folder is given.

    Args:
        text: kinds with their rates: kbit/s of opus and speex, bit/s of codec2.
        encodec_folder: of `transformers.EncodecModel`.

    Raises:
        ValueError: an unknown kind or an impossible rate.
        FileNotFoundError: no such folder.
    """
    anchors = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, rate = item.partition(":")
        if kind == "speex":
            kilobits = _speex_rate(item, rate or "4")
            code = functools.partial(speex, kilobits=kilobits)
            anchors.append(Anchor("Speex", item, code, _missing_speex()))
            continue
        [choice] = parse_baselines(item)
        function = choice.function()
        if kind == "codec2" and choice.argument == 700:
            function = functools.partial(codec2, bits="700C")  # what c2enc calls its mode
        code = functools.partial(_packets, function)
        anchors.append(Anchor(kind.capitalize(), item, code, choice.missing()))
    return anchors + (_encodecs(Path(encodec_folder)) if encodec_folder else [])


def _missing_speex() -> str:
    if shutil.which("speexenc") and shutil.which("speexdec"):
        return ""
    return "the programs speexenc and speexdec are missing: apt-get install speex"


def _speex_rate(item: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 2 <= rate <= 25:
        raise ValueError(f"--anchors {item}: expected 2 to 25 kbit/s")
    return rate


def _packets(code: Callable, wav: np.ndarray) -> tuple[np.ndarray, int]:
    decoded, _, packets = code(wav)
    return decoded, packets


def _encodecs(folder: Path) -> Sequence[Anchor]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: give the folder of EnCodec's weights")
    try:
        from transformers import EncodecModel
    except ImportError as error:
        missing = f"transformers is not installed ({error}): pip install transformers"
        return [Anchor("EnCodec", "encodec", lambda wav: (wav, 0), missing)]
    model = EncodecModel.from_pretrained(folder, local_files_only=True).eval()
    return [
        Anchor(
            "EnCodec", f"encodec:{rate:g}", functools.partial(encodec, model=model, bandwidth=rate)
        )
        for rate in model.config.target_bandwidths
        if rate <= 6
    ]
