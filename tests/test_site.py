"""The documentation site, its samples, and the version that all files agree on."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest
import soundfile
from small_corpus import REPOSITORY

import fairseq_resynth

DOCS = REPOSITORY / "docs"
SAMPLES = re.findall(r'<audio [^>]*src="([^"]+)"', (DOCS / "samples.md").read_text())


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="pip install 'fairseq_resynth[docs]'"
)
def test_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob("*.html"))) > len(list(DOCS.glob("*.md")))  # and 404.html
    for page in tmp_path.glob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|audio|iframe)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (
                f"{page.name}: {tag}"
            )
    for page in tmp_path.glob("**/*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", page.read_text()), page.name


TASKS = """Bring Choose Compare Convert Estimate Find Listen Measure Record Run See Train Translate Turn
Write""".split()


def test_every_page_says_what_its_reader_can_do():
    for page in DOCS.glob("*.md"):
        first = page.read_text().split("\n\n")[1].split()[0]
        assert first in TASKS, f"{page.name} begins with {first!r}"


def test_samples_are_small_and_complete():
    assert len(SAMPLES) == 6 * 7
    assert {f"samples/{path.name}" for path in (DOCS / "samples").iterdir()} == set(SAMPLES)
    assert sum((DOCS / name).stat().st_size for name in SAMPLES) < 3_000_000
    for name in SAMPLES:
        assert soundfile.info(DOCS / name).samplerate == 16000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c2enc") is None, reason="apt-get install codec2")
def test_the_script_makes_the_page(tmp_path):
    script = REPOSITORY / "scripts" / "make_samples.py"
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(script),
        "--outdir",
        str(tmp_path),
        "--number",
        "1",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert (DOCS / "samples.md").read_text().startswith((tmp_path / "samples.md").read_text())
    assert len(list((tmp_path / "samples").glob("*.flac"))) == 7


def test_one_version():
    version = fairseq_resynth.__version__
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert (
        re.search(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)[1] == version
    )
