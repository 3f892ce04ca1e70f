"""The page in a real browser: a recording is uploaded or recorded, changed, seen and heard."""

import base64
import io
import threading

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, RUSSIAN, save_tiny_bundle

from fairseq_resynth.play.server import PlayServer
from fairseq_resynth.play.sessions import PlaySession
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    system = Resynthesizer.from_pretrained(
        save_tiny_bundle(tmp_path_factory.mktemp("play") / "bundle")
    )
    with PlayServer(("127.0.0.1", 0), 1_000_000, PlaySession(system, max_seconds=8)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Page:
    """What a user does with the page."""

    def __init__(self, driver):
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver = driver
        self.until = WebDriverWait(driver, 120, poll_frequency=0.1).until
        self.until(lambda _: self.text("model").endswith("memory of this server."))

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, id):
        return self.find(f"#{id}").text

    def problem(self):
        self.until(lambda _: self.find("#problem").is_displayed())
        return self.text("problem")

    def upload(self, path, kind="source"):
        self.driver.execute_script(f"document.getElementById('{kind}-status').textContent = ''")
        self.find(f"#{kind}-file").send_keys(str(path))
        self.until(
            lambda _: f"{path.name}: " in self.text(f"{kind}-status") or self.text("problem")
        )

    def choose(self, id, text):
        from selenium.webdriver.support.ui import Select

        Select(self.find(f"#{id}")).select_by_visible_text(text)

    def slide(self, id, value):
        self.driver.execute_script(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            self.find(f"#{id}"),
            value,
        )

    def speak(self):
        self.driver.execute_script("document.getElementById('result')?.remove()")
        self.find("#speak").click()
        self.until(lambda _: self.driver.find_elements("id", "result") or self.text("problem"))
        assert not self.text("problem")
        uri = self.find("#result audio").get_attribute("src")
        return soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))[0]


@pytest.fixture
def page(open_page, server):
    return Page(open_page(server.url))


def test_an_upload_is_spoken_in_voice_pitch_and_rate(page, play):
    page.upload(ENGLISH)
    assert page.text("source-status") == "dir-welcome.flac: 1.80 s"
    anna = page.speak()
    assert abs(len(anna) - 28758) <= 320
    page.choose("voice", "boris")
    boris = page.speak()
    assert len(boris) == len(anna) and np.abs(boris - anna).max() > 1e-4
    page.choose("pitch", "shifted by semitones")
    assert page.find("#shift-field").is_displayed() and not page.find("#scale-field").is_displayed()
    page.slide("shift", 3)
    shifted = page.speak()
    assert len(shifted) == len(boris) and np.abs(shifted - boris).max() > 1e-4
    page.slide("octaves", -0.32)
    assert page.find("output[for=octaves]").text == "0.80×"
    slow = page.speak()
    assert abs(len(slow) / len(shifted) - 1.25) < 0.01
    assert "boris, shift=+3st, rate 0.8" in page.find("#result h2").text
    assert play(page.find("#result audio")) == "played"


def test_spectrogram_pitch_units_and_bits_are_shown(page):
    page.upload(ENGLISH)
    page.slide("octaves", -1)
    page.speak()
    (real, half), (made, whole) = page.driver.execute_script(
        "return [...document.querySelectorAll('.over-time img')]"
        ".map((image) => [image.naturalWidth, image.clientWidth])"
    )
    assert real == 179 and made == pytest.approx(360, abs=4)  # a column each 10 ms
    assert half / whole == pytest.approx(real / made, abs=0.01)  # one scale of time
    assert "Hz on average" in page.find("#result .facts").text
    assert "432 bit/s at a fixed length" in page.find("#result .bits").text
    page.find("#result summary").click()
    runs = page.find("#result .numbers").text.split()
    assert sum(int(run.partition("×")[2] or 1) for run in runs) == made
    assert all(
        run.partition("×")[0] != after.partition("×")[0]
        for run, after in zip(runs, runs[1:], strict=False)
    )
    colors = page.driver.execute_script(
        "const c = document.querySelector('#result canvas');"
        "const d = c.getContext('2d').getImageData(0, 5, c.width, 1).data;"
        "return new Set(Array.from({length: c.width}, (_, i) => d.slice(4 * i, 4 * i + 3).join())).size"
    )
    assert colors >= len({run.partition("×")[0] for run in runs})


def test_a_microphone_and_a_reference(page):
    import time

    button = page.find(".record[data-for=source]")
    button.click()
    page.until(lambda _: button.get_attribute("aria-pressed") == "true")
    time.sleep(2.0)
    assert "recording, " in page.text("source-status")
    button.click()
    page.until(
        lambda _: page.text("source-status").startswith("recording: ") or page.text("problem")
    )
    assert not page.text("problem")
    assert float(page.text("source-status").split()[1]) > 1.5
    assert page.find("#source-file").get_attribute("value") == ""  # not the name of an earlier file
    assert page.text("speak-status") == ""
    page.choose("voice", "anna")
    anna = page.speak()
    page.choose("voice", "somebody in a recording …")
    page.find("#speak").click()
    assert "the target voice" in page.problem()
    page.upload(RUSSIAN, "reference")
    assert "voiced frames" in page.text("reference-status")
    other = page.speak()
    assert len(other) == len(anna) and np.abs(other - anna).max() > 1e-4
    assert "voiced frames" in page.find("#result .note").text


def test_a_bad_upload_is_a_sentence_on_the_page_and_the_next_works(page, tmp_path):
    page.find("#speak").click()
    assert page.problem() == "Record something first, or choose a file."
    (tmp_path / "text.wav").write_text("no audio")
    page.upload(tmp_path / "text.wav")
    assert "not readable as audio" in page.problem()
    soundfile.write(tmp_path / "long.wav", 0.1 * np.ones(16000 * 9), 16000)
    page.upload(tmp_path / "long.wav")
    assert "longer than 8 s" in page.problem()
    (tmp_path / "large.wav").write_bytes(bytes(1_000_001))
    page.upload(tmp_path / "large.wav")
    assert "1.0 MB, expected up to 1 MB" in page.problem()
    page.upload(ENGLISH)
    assert not page.find("#problem").is_displayed() and len(page.speak()) > 16000
    page.driver.get_log("browser")  # the browser itself notes the refused requests


def test_keyboard_alone_is_enough(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.upload(ENGLISH)
    seen = []
    for _ in range(12):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        seen.append(page.driver.switch_to.active_element.get_attribute("id"))
        if seen[-1] == "octaves":
            ActionChains(page.driver).send_keys(Keys.ARROW_RIGHT).perform()
        if seen[-1] == "speak":
            break
    assert seen[-1] == "speak" and {"source-file", "voice", "pitch", "octaves"} <= set(seen)
    assert page.find("output[for=octaves]").text == "1.01×"
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.until(lambda _: page.driver.find_elements("id", "result"))


def test_it_fits_a_phone(open_page, server):
    driver = open_page(server.url)
    device = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    page = Page(driver)
    page.upload(ENGLISH)
    page.speak()
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    scroll, inner = driver.execute_script(wide)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == 390 and scroll <= 390


def test_style_and_language_are_chosen_by_name(open_page, tmp_path):
    """Names of styles and of files come from others, and are text even if they look like markup."""
    markup = "<img/src=x/onerror=alert(1)>"
    names = {"style": ("calm", markup), "language": ("de", "en")}
    system = Resynthesizer.from_pretrained(save_tiny_bundle(tmp_path / "bundle", tokens=names))
    with PlayServer(("127.0.0.1", 0), 1_000_000, PlaySession(system, max_seconds=8)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(open_page(server.url))
        recording = tmp_path / "<b onclick=alert(2)>.flac"
        recording.write_bytes(ENGLISH.read_bytes())
        page.upload(recording)
        assert page.text("source-status") == f"{recording.name}: 1.80 s"
        wavs = [page.speak()]
        for token, name in (("style", markup), ("language", "en")):
            assert page.find(f"#{token}").text.split() == list(names[token])
            page.choose(token, name)
            wavs.append(page.speak())
            assert np.abs(wavs[-1] - wavs[-2]).max() > 1e-4
        assert f"anna, {markup}, en" in page.find("#result h2").text
        assert not page.driver.find_elements("css selector", "[src='x'], main b, main script")
        page.find("#live").click()
        page.until(lambda _: page.driver.execute_script("return live.received > 0"))
        page.find("#live").click()
        assert not page.text("problem")
        server.shutdown()


def test_live_conversion_of_the_microphone(page):
    """Chromium's microphone plays a recording over and over; the page plays another voice."""
    button = page.find("#live")
    page.choose("voice", "boris")
    button.click()
    page.until(lambda _: page.driver.execute_script("return live.peak > 0.001"))
    assert button.get_attribute("aria-pressed") == "true" and not page.text("problem")
    assert "speaking, " in page.text("live-status")
    page.choose("voice", "anna")  # while somebody speaks
    before = page.driver.execute_script("return live.received")
    page.until(lambda _: page.driver.execute_script("return live.received") > before + 48000)
    button.click()
    assert button.text == "Speak live" and not page.text("problem")
    assert page.driver.execute_script("return live.socket === null")
    page.choose("voice", "somebody in a recording …")
    button.click()
    assert "Record the target voice" in page.problem()
    assert page.driver.get_log("browser") == []
