"""A real headless Chromium, whose microphone hears a recording."""

import shutil
from pathlib import Path

import pytest
import soundfile

SPEECH = Path(__file__).resolve().parents[2] / "examples" / "asterisk" / "speech"
HEARD = SPEECH / "english" / "dir-welcome.flac"
CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --autoplay-policy=no-user-gesture-required "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
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
    folder = tmp_path_factory.mktemp("chromium")
    soundfile.write(folder / "heard.wav", *soundfile.read(HEARD))
    own = (f"--user-data-dir={folder}", f"--use-file-for-fake-audio-capture={folder}/heard.wav")
    for flag in (*CHROMIUM_FLAGS, *own):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.set_script_timeout(20)
    yield session
    session.quit()


@pytest.fixture
def open_page(browser):
    """Opens a file or an address and fails on anything that its console says."""

    def load(path, width=1200, height=900):
        browser.set_window_size(width, height)
        browser.get_log("browser")
        browser.get(path if isinstance(path, str) else path.resolve().as_uri())
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
