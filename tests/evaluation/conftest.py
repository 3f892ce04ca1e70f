"""A little speech-like audio."""

import numpy as np
import pytest
import soundfile


def voice(seconds: float, f0_hz: float, seed: int = 0) -> np.ndarray:
    """(T,) float32 at 16 kHz: harmonics of a wavering F0 with pauses, and a little noise."""
    time = np.arange(int(seconds * 16000)) / 16000
    contour = f0_hz * (1 + 0.15 * np.sin(2 * np.pi * 1.3 * time + seed))
    phase = 2 * np.pi * np.cumsum(contour) / 16000
    wav = sum(np.sin(k * phase) / k for k in range(1, 20)) * 0.1
    wav *= (time * 2 + 0.1 * seed) % 1 < 0.8
    noise = np.random.default_rng(seed).normal(size=len(time)) * 1e-3
    return (wav + noise).astype(np.float32)


@pytest.fixture(scope="session")
def wavs(tmp_path_factory):
    """A folder of three short wavs in two speakers' folders."""
    root = tmp_path_factory.mktemp("wavs")
    for index, name in enumerate(("ann/one", "ann/two", "bob/one")):
        path = root / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, voice(1.2 + 0.1 * index, 110 + 60 * index, index), 16000)
    return root
