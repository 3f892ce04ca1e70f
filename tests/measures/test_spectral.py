import math

import librosa
import numpy as np
import pytest
import scipy.signal

from fairseq_resynth.measures import spectral
from fairseq_resynth.measures.spectral import frequency_transform, mel_cepstrum


@pytest.fixture(scope="module")
def wav() -> np.ndarray:
    """One second of two resonances driven by pulses and noise, with 0.1 s of digital silence."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=16000) * 0.01
    source[::133] += 0.3
    speech = scipy.signal.lfilter([1], np.poly([0.95 * np.exp(0.3j), 0.95 * np.exp(-0.3j)]), source)
    speech = scipy.signal.lfilter([1], np.poly([0.9 * np.exp(1.1j), 0.9 * np.exp(-1.1j)]), speech)
    speech = 0.5 * speech / np.abs(speech).max()
    speech[8000:9600] = 0
    return speech.astype(np.float32)


@pytest.fixture(scope="module")
def other(wav) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=len(wav)) * 0.005
    return (scipy.signal.lfilter([1, -0.3], [1], wav) + noise).astype(np.float32)


def test_mel_cepstrum_equals_numbers_of_pysptk(wav):
    # pysptk 1.0.1, which needs a compiler: mcep(frame 10, 23, 0.42, eps=1e-6, etype=1)[:6]
    expected = [-0.426013, 2.340056, -0.776329, 0.279254, -0.365568, -0.415189]
    np.testing.assert_allclose(mel_cepstrum(wav)[10, :6], expected, atol=2e-4)


def test_mel_cepstrum_equals_pysptk(wav):
    pysptk = pytest.importorskip("pysptk")
    frames = np.lib.stride_tricks.sliding_window_view(wav.astype(float), 1024)[::256]
    window = np.hamming(1024)
    expected = [pysptk.mcep(frame * window, 23, 0.42, eps=1e-6, etype=1) for frame in frames]
    np.testing.assert_allclose(mel_cepstrum(wav), expected, atol=1e-9)


def test_frequency_transform_of_one_coefficient():
    # (z^-1 + a) / (1 + a z^-1) = a + (1 - a^2) z^-1 - a (1 - a^2) z^-2 ...
    warped = frequency_transform(2, 3, 0.4) @ np.array([0.0, 1.0])
    np.testing.assert_allclose(warped, [0.4, 0.84, -0.336])


def test_mcd_by_its_formula(wav, other):
    first, second = mel_cepstrum(wav)[:, 1:], mel_cepstrum(other)[:, 1:]
    expected = np.mean(
        [
            10 / math.log(10) * math.sqrt(2 * sum((a - b) ** 2))
            for a, b in zip(first, second, strict=True)
        ]
    )
    assert spectral.mel_cepstral_distortion(wav, other) == pytest.approx(expected)
    assert spectral.mel_cepstral_distortion(wav, wav) == 0


def test_mcd_ignores_loudness(wav):
    loud = wav[1000:7000]
    assert spectral.mel_cepstral_distortion(loud, 0.5 * loud) < 0.05
    louder = 10 / math.log(10) * math.sqrt(2) * math.log(2)  # c0 is half a natural log of the power
    distance = spectral.mel_cepstral_distortion(loud, 0.5 * loud, dtw=True, loudness=True)
    assert distance == pytest.approx(louder, rel=0.05)


def test_dtw_frees_the_timing(wav):
    delayed = np.concatenate([np.zeros(2560, np.float32), wav])
    plain = spectral.mel_cepstral_distortion(wav, delayed)
    assert spectral.mel_cepstral_distortion(wav, delayed, dtw=True) < 0.4 * plain
    with pytest.raises(ValueError, match="1.000 s and 2.000 s, more than 0.2 s apart"):
        spectral.mel_cepstral_distortion(wav, np.tile(wav, 2))
    assert spectral.mel_cepstral_distortion(wav, np.tile(wav, 2), dtw=True) > 0


def test_dtw_never_beats_its_definition(wav, other):
    first, second = mel_cepstrum(wav[:4000])[:, 1:], mel_cepstrum(other[:5000])[:, 1:]
    cost = np.linalg.norm(first[:, None] - second[None], axis=2)
    # an independent dynamic program: (cost, path length), cheapest cost first
    table = {(-1, -1): (0.0, 0)}
    for i in range(len(first)):
        for j in range(len(second)):
            options = [table.get(cell) for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            best = min(option for option in options if option)
            table[i, j] = best[0] + cost[i, j], best[1] + 1
    total, length = table[len(first) - 1, len(second) - 1]
    expected = 10 / math.log(10) * math.sqrt(2) * total / length
    found = spectral.mel_cepstral_distortion(wav[:4000], other[:5000], dtw=True)
    assert found == pytest.approx(expected)


def test_mel_l1_against_librosa(wav, other):
    def log_mel(samples):
        padded = np.pad(samples, 384, mode="reflect")
        mel = librosa.feature.melspectrogram(
            y=padded, sr=16000, n_fft=1024, hop_length=256, n_mels=80, power=1, center=False
        )
        return np.log(np.maximum(mel, 1e-5))

    expected = np.abs(log_mel(wav) - log_mel(other)).mean()
    assert spectral.mel_l1_distance(wav, other) == pytest.approx(expected, rel=1e-3)
    assert spectral.mel_l1_distance(wav, wav) == 0


def test_multi_resolution_stft_by_hand(wav, other):
    result = spectral.multi_resolution_stft(wav, other)
    convergence, log_magnitude = [], []
    for n_fft, hop, size in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        window = scipy.signal.get_window("hann", size)
        margin = (n_fft - size) // 2
        window = np.pad(window, (margin, n_fft - size - margin))
        pair = []
        for samples in (wav, other):
            frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)
            pair.append(np.abs(np.fft.rfft(frames[::hop] * window)))
        convergence.append(np.sqrt(((pair[0] - pair[1]) ** 2).sum() / (pair[0] ** 2).sum()))
        logs = [np.log(np.maximum(magnitude, 1e-4)) for magnitude in pair]
        log_magnitude.append(np.abs(logs[0] - logs[1]).mean())
    assert result["spectral_convergence"] == pytest.approx(np.mean(convergence), rel=1e-3)
    assert result["log_magnitude"] == pytest.approx(np.mean(log_magnitude), rel=1e-3)


@pytest.mark.parametrize("frames", [1, 3, 50])
def test_spectra_in_blocks_are_those_of_the_whole(wav, other, frames, monkeypatch):
    """The second recording ends within a hop; blocks of few frames have neighbors at both ends."""
    pairs = [(wav, other), (wav[:700], other[:600]), (wav[:300], other[:200]), (wav[:1], other[:1])]
    whole = [(spectral.mel_l1_distance(*p), spectral.multi_resolution_stft(*p)) for p in pairs]
    monkeypatch.setattr(spectral, "BLOCK_FRAMES", frames)
    for pair, (mel, stft) in zip(pairs, whole, strict=True):
        assert spectral.mel_l1_distance(*pair) == pytest.approx(mel, rel=1e-6)
        assert spectral.multi_resolution_stft(*pair) == pytest.approx(stft, rel=1e-6)


def test_half_the_amplitude_by_hand(wav):
    tone = np.sin(np.arange(16000) * 0.3).astype(np.float32)
    result = spectral.multi_resolution_stft(tone, 0.5 * tone)
    assert result["spectral_convergence"] == pytest.approx(0.5, rel=1e-4)


def test_silence_is_finite_or_undefined(wav):
    silence = np.zeros_like(wav)
    assert math.isfinite(spectral.mel_l1_distance(silence, wav))
    assert math.isfinite(spectral.mel_cepstral_distortion(silence, wav))
    assert math.isnan(spectral.multi_resolution_stft(silence, wav)["spectral_convergence"])
    assert spectral.mel_cepstral_distortion(silence, silence) == pytest.approx(0, abs=1e-9)


def test_lengths(wav):
    shorter = wav[:-3200]
    assert spectral.mel_l1_distance(wav, shorter) < 0.1
    with pytest.raises(ValueError, match="more than 0.2 s apart"):
        spectral.mel_l1_distance(wav, wav[:-3201])
    with pytest.raises(ValueError, match="one is empty"):
        spectral.mel_l1_distance(wav, wav[:0])
    with pytest.raises(ValueError, match="too short for a mel-cepstrum: 1024 needed"):
        spectral.mel_cepstral_distortion(wav[:1000], wav[:1000])


def test_rates(wav):
    with pytest.raises(ValueError, match="not 44100"):
        spectral.mel_cepstral_distortion(wav, wav, sample_rate=44100)
