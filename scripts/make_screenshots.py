"""Takes the pictures of README and docs: docs/images/report.webp and docs/images/play.webp.

usage: python scripts/make_screenshots.py WHISPER [--outdir docs/images]

Makes the report of `resynth evaluate` on the held-out prompts of examples/asterisk, and drives the page of
`resynth play` with the bundle there, in headless Chromium (apt-get install chromium chromium-driver codec2;
pip install selenium). WHISPER is the bundle's content encoder, a folder or name of Whisper base.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import Select, WebDriverWait

REPOSITORY = Path(__file__).resolve().parents[1]
ASTERISK = REPOSITORY / "examples" / "asterisk"
WIDTH = 1180  # of the window, in CSS pixels
RESYNTH = [sys.executable, "-W", "ignore", "-m", "fairseq_resynth.cli.main"]


def open_browser() -> webdriver.Chrome:
    """A headless Chromium."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options)


def save(browser: webdriver.Chrome, path: Path, height: int) -> None:
    """Writes the top of the page, `height` CSS pixels of it."""
    browser.set_window_size(WIDTH, height)
    write(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"), path)


def write(picture: Image.Image, path: Path) -> None:
    """Writes a picture and says how large it is."""
    picture.save(path, quality=82, method=6)
    print(f"{path}: {picture.size[0]} x {picture.size[1]}, {path.stat().st_size // 1000} kB")


def report(browser: webdriver.Chrome, folder: Path, path: Path) -> None:
    """The report of the bundle beside Opus, Codec2 and WORLD: its summary, and one of its examples."""
    held_out, generated = ASTERISK / "held_out", folder / "resynthesis"
    speak = ["--bundle", ASTERISK / "bundle", "--input", held_out, "--outdir", generated]
    subprocess.run([*RESYNTH, "synthesize", *speak], check=True)
    compare = ["--generated", f"resynthesis={generated}", "--reference", held_out]
    compare += ["--baselines", "opus:6,codec2:700", "--metrics", "f0,mel,mcd,rate"]
    subprocess.run([*RESYNTH, "evaluate", *compare, "--outdir", folder / "report"], check=True)
    browser.set_window_size(WIDTH, 5000)
    browser.get((folder / "report" / "index.html").as_uri())
    loaded = (
        "return [...document.querySelectorAll('audio')].slice(0, 4).every(a => a.readyState > 0)"
    )
    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(loaded))
    page = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    top = _bottom(browser, "table")
    listen = browser.find_element("xpath", "//h2[text()='Listen']").rect["y"]
    example = browser.find_elements("css selector", "audio")[0].rect["y"]
    parts = [(0, top + 12), (listen - 12, example + 280)]
    picture = Image.new("RGB", (page.width, round(sum(stop - start for start, stop in parts))))
    offset = 0
    for start, stop in parts:
        picture.paste(page.crop((0, round(start), page.width, round(stop))), (0, offset))
        offset += round(stop - start)
    write(picture, path)


def _bottom(browser: webdriver.Chrome, selector: str) -> float:
    rect = browser.find_elements("css selector", selector)[0].rect
    return rect["y"] + rect["height"]


def play(browser: webdriver.Chrome, whisper: str, path: Path) -> None:
    """The page with a Russian prompt that is said in the English voice, three semitones up."""
    server = subprocess.Popen(
        [*RESYNTH, "play", "--bundle", ASTERISK / "bundle", "--content-checkpoint", whisper]
        + ["--port", "8123"]
    )
    try:
        browser.set_window_size(WIDTH, 1000)
        wait = WebDriverWait(browser, 240)
        wait.until(lambda _: _reached(browser, "http://127.0.0.1:8123/"))
        find = browser.find_element
        wait.until(lambda _: " units" in find("id", "model").text)
        find("id", "source-file").send_keys(
            str(ASTERISK / "speech" / "russian" / "confbridge-lock-out.flac")
        )
        wait.until(lambda _: "flac: " in find("id", "source-status").text)
        for name, text in (("speaker", "russian"), ("voice", "english")):
            Select(find("id", name)).select_by_value(text)
        Select(find("id", "pitch")).select_by_value("shift")
        browser.execute_script("refresh()")
        find("id", "speak").click()
        wait.until(lambda _: browser.find_elements("id", "result") or find("id", "problem").text)
        if find("id", "problem").text:
            raise ValueError(find("id", "problem").text)
        save(browser, path, 1180)
    finally:
        server.terminate()
        server.wait()


def _reached(browser: webdriver.Chrome, url: str) -> bool:
    browser.get("about:blank")
    try:
        browser.get(url)
    except Exception:
        return False
    return bool(browser.find_elements("id", "model"))


def main() -> None:
    """Takes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("whisper", help="folder or name of Whisper base")
    parser.add_argument("--outdir", type=Path, default=REPOSITORY / "docs" / "images")
    args = parser.parse_args()
    browser = open_browser()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report(browser, Path(folder), args.outdir / "report.webp")
            play(browser, args.whisper, args.outdir / "play.webp")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
