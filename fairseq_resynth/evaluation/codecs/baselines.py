"""Systems to compare with: copy synthesis by vocoders without training, and other codecs."""

import functools
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import fit_length, resample, write_audio
from fairseq_resynth.evaluation.metrics.packages import missing_packages

NARROW_BAND_RATE = 8000  # Hz
CODEC2_RATES = (700, 1200, 1300, 1400, 1600, 2400, 3200)  # bit/s
# samples at 8 kHz by which c2enc and c2dec delay speech, as measured
CODEC2_DELAY = dict.fromkeys(CODEC2_RATES, 160) | {700: 280}
ENCODEC_HIGHEST = 6  # kbit/s: higher rates of EnCodec are left out


class Coded(NamedTuple):
    """Speech that went through a baseline."""

    wav: np.ndarray  # (T,) float32 at 16 kHz, as long as the original and without delay
    file_bytes: int = 0  # 0 if there are no bits to count
    packet_bytes: int = 0  # without container and header


@dataclass(frozen=True)
class Baseline:
    """A baseline, at one rate if it is a codec."""

    family: str  # points of one family are joined in the plot
    label: str  # as it was asked for, "opus:12" for instance
    code: Callable[[np.ndarray], Coded]  # maps (T,) float32 at 16 kHz to what comes out
    missing: str = ""  # what to install, or an empty string

    @property
    def system(self) -> str:
        """The label as the name of a system and of its folder, "opus-12" for instance."""
        return self.label.replace(":", "-")


def griffin_lim(wav: np.ndarray) -> Coded:
    """80 mel bands (n_fft 1024, hop 256) and back by Griffin-Lim, 32 iterations, as in librosa."""
    import librosa

    options = {"sr": SAMPLE_RATE, "n_fft": 1024, "hop_length": 256}
    mel = librosa.feature.melspectrogram(y=wav, n_mels=80, **options)
    with np.errstate(all="ignore"):
        again = librosa.feature.inverse.mel_to_audio(mel, length=len(wav), **options)
    return Coded(np.nan_to_num(again).astype(np.float32))


def world(wav: np.ndarray) -> Coded:
    """WORLD analysis and synthesis (Morise et al., 2016) at the same F0, by DIO and StoneMask."""
    import pyworld

    samples = wav.astype(np.float64)
    f0, times = pyworld.dio(samples, SAMPLE_RATE, frame_period=5.0)
    f0 = pyworld.stonemask(samples, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(samples, f0, times, SAMPLE_RATE)
    again = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, 5.0)
    return Coded(fit_length(again, len(wav)).astype(np.float32))


def opus(wav: np.ndarray, rate: float) -> Coded:
    """Opus for speech at a variable rate of about `rate` kbit/s; the paper's is 9 kbit/s. The pages and
    headers of the Ogg file take more than 200 bytes, which its packets leave out."""
    import av

    stream, packet_bytes = io.BytesIO(), 0
    with av.open(stream, "w", format="ogg") as container:
        encoder = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        encoder.bit_rate = int(1000 * rate)
        encoder.options = {"application": "voip", "vbr": "on"}
        samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*encoder.encode(frame), *encoder.encode(None)]:
            packet_bytes += packet.size
            container.mux(packet)
    content = stream.getvalue()
    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        decoded_rate = container.streams.audio[0].rate
    decoded = np.concatenate(frames, axis=1).mean(0).astype(np.float32)
    return Coded(fit_length(resample(decoded, decoded_rate), len(wav)), len(content), packet_bytes)


def codec2(wav: np.ndarray, rate: int) -> Coded:
    """Codec2 (Rowe, 2011) at 8 kHz by its programs, at `rate` bit/s; the paper's is 2400."""
    narrow = resample(wav, SAMPLE_RATE, NARROW_BAND_RATE)
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, decoded = (Path(folder, name) for name in ("in.raw", "coded.bit", "out.raw"))
        # c2enc drops an incomplete last frame; a frame is 40 ms at the most
        padded = np.pad(np.clip(narrow, -1, 1), (0, 320))
        raw.write_bytes((padded * 32767).astype("<i2").tobytes())
        mode = "700C" if rate == 700 else str(rate)
        _run("c2enc", mode, raw, coded)
        _run("c2dec", mode, coded, decoded)
        again = np.frombuffer(decoded.read_bytes(), "<i2").astype(np.float32) / 32768
        size = coded.stat().st_size
    # metrics compare at equal times
    again = resample(again[CODEC2_DELAY[rate] :], NARROW_BAND_RATE)
    return Coded(fit_length(again, len(wav)), size, size)


def speex(wav: np.ndarray, rate: float) -> Coded:
    """Speex, narrow band (Valin, 2006), by its programs, at `rate` kbit/s; the paper's is 4."""
    import av

    narrow = np.pad(np.clip(resample(wav, SAMPLE_RATE, NARROW_BAND_RATE), -1, 1), (0, 480))
    with tempfile.TemporaryDirectory() as folder:
        source, coded, decoded = (Path(folder, name) for name in ("in.wav", "a.spx", "out.wav"))
        write_audio(source, narrow, NARROW_BAND_RATE)
        _run("speexenc", "--narrowband", "--bitrate", str(int(1000 * rate)), source, coded)
        _run("speexdec", coded, decoded)
        with av.open(str(coded)) as container:
            packet_bytes = sum(packet.size for packet in container.demux(audio=0))
        again = resample(*load_any_audio(decoded))
        return Coded(fit_length(again, len(wav)), coded.stat().st_size, packet_bytes)


def _run(program: str, *arguments: str | Path) -> None:
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)


def encodec(wav: np.ndarray, model: Any, rate: float) -> Coded:
    """EnCodec (Défossez et al., 2022) by `transformers`, without its entropy coder, at `rate` kbit/s."""
    import torch

    model_rate = model.config.sampling_rate
    inputs = torch.from_numpy(resample(wav, SAMPLE_RATE, model_rate))[None, None]
    with torch.inference_mode():
        coded = model.encode(inputs, bandwidth=rate)
        decoded = model.decode(coded.audio_codes, coded.audio_scales)[0]
    bits = coded.audio_codes.numel() * int(model.config.codebook_size - 1).bit_length()
    again = resample(decoded[0, 0].numpy(), model_rate)
    return Coded(fit_length(again, len(wav)), *[-(-bits // 8)] * 2)


class _Kind(NamedTuple):
    family: str
    code: Callable[..., Coded]
    rates: Sequence[float] = ()  # default, lowest and highest in kbit/s; none: there are no rates
    programs: tuple[str, ...] = ()
    package: str = ""  # which has the programs


_KINDS = {
    "griffinlim": _Kind("Griffin-Lim", griffin_lim),
    "world": _Kind("WORLD", world),
    "opus": _Kind("Opus", opus, (9, 6, 510)),
    "codec2": _Kind("Codec2", codec2, (2400, *CODEC2_RATES), ("c2enc", "c2dec"), "codec2"),
    "speex": _Kind("Speex", speex, (4, 2, 25), ("speexenc", "speexdec"), "speex"),
}


def parse_baselines(text: str, option: str = "--baselines") -> list[Baseline]:
    """Parses `griffinlim,world,opus:9,codec2:2400,speex:4`; `option` is what messages call the text. Rates
    are in kbit/s, of codec2 in bit/s. Raises ValueError for an unknown kind, or a rate that the kind does
    not have."""
    baselines = []
    for item in filter(None, map(str.strip, text.split(","))):
        name, _, rate = item.partition(":")
        if name not in _KINDS:
            raise ValueError(f"{option}: no {name!r}, expected {', '.join(_KINDS)}")
        kind = _KINDS[name]
        code, missing = kind.code, ""
        if kind.rates:
            code = functools.partial(code, rate=_parse_rate(rate, kind, f"{option} {item!r}"))
        elif rate:
            raise ValueError(f"{option}: {name} has no rate, found {item!r}")
        if not all(map(shutil.which, kind.programs)):
            programs = " and ".join(kind.programs)
            missing = f"the programs {programs} are missing: apt-get install {kind.package}"
        elif name == "world":
            missing = missing_packages(["pyworld"], "pyworld")
        baselines.append(Baseline(kind.family, item, code, missing))
    return baselines


def _parse_rate(text: str, kind: _Kind, place: str) -> float:
    try:
        rate = float(text) if text else kind.rates[0]
    except ValueError:
        rate = 0
    if kind.code is codec2:
        if rate not in CODEC2_RATES:
            known = ", ".join(map(str, CODEC2_RATES))
            raise ValueError(f"{place}: expected one of {known} bit/s")
        return int(rate)
    _, low, high = kind.rates
    if not low <= rate <= high:
        raise ValueError(f"{place}: expected a rate from {low} to {high} kbit/s")
    return rate


def encodec_baselines(folder: str | Path) -> list[Baseline]:
    """EnCodec at its rates up to 6 kbit/s. Raises FileNotFoundError if its folder does not exist."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} does not exist: give the folder of EnCodec's weights")
    if missing := missing_packages(["transformers"], "transformers"):
        return [Baseline("EnCodec", "encodec", Coded, missing)]
    from transformers import EncodecModel

    model = EncodecModel.from_pretrained(folder, local_files_only=True).eval()
    return [
        Baseline("EnCodec", f"encodec:{rate:g}", functools.partial(encodec, model=model, rate=rate))
        for rate in model.config.target_bandwidths
        if rate <= ENCODEC_HIGHEST
    ]
