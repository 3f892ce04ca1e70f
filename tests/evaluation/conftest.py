"""A real headless Chromium, and a little speech-like audio."""

import shutil

import numpy as np
import pytest
import soundfile

CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --autoplay-policy=no-user-gesture-required"
).split()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium driven by selenium; skips with what to install where it is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.set_script_timeout(20)
    yield session
    session.quit()


@pytest.fixture
def open_page(browser):
    """Opens a file and fails on anything that its console says."""

    def load(path, width=1200, height=900):
        browser.set_window_size(width, height)
        browser.get_log("browser")
        browser.get(path.resolve().as_uri())
        assert browser.get_log("browser") == []
        return browser

    return load


PLAY = """
const [player, done] = [arguments[0], arguments[arguments.length - 1]];
player.muted = true;
player.addEventListener("timeupdate", () => { if (player.currentTime > 0.05) done("played"); });
player.addEventListener("error", () => done("error " + player.error.message));
player.play().catch((error) => done("refused " + error));
"""


@pytest.fixture
def play(browser):
    """Returns "played" when a player's time goes on."""
    return lambda player: browser.execute_async_script(PLAY, player)


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
