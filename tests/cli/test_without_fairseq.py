"""Speech without fairseq: all but training and its own encoders runs where it cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "without_fairseq.py"


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_verbs_never_import_fairseq(tmp_path):
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    verbs = [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("done: ")]
    assert set(verbs) == {
        *["preprocess", "manifest", "kmeans", "quantize", "f0", "quantize-f0"],
        *["synthesize", "resynthesize", "convert", "play", "evaluate"],
        *["fit-codec", "encode", "inspect", "decode", "import", "export"],
    }


def test_what_needs_fairseq_says_so_in_one_sentence():
    """As on Python 3.13, for which fairseq has no package."""
    hidden = "import sys; sys.modules['fairseq'] = None\n"
    command = "['kmeans', 'DATA', '--feature-type', 'hubert', '--content-checkpoint', 'x', "
    command += "'--layer', '6', '--out', 'y']"
    done = run(f"{hidden}from fairseq_resynth.cli.main import main; sys.exit(main({command}))")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("resynth kmeans: error: ") and len(done.stderr.splitlines()) == 1
    assert "needs fairseq" in done.stderr or "need fairseq" in done.stderr
    done = run(f"{hidden}import fairseq_resynth.tasks")
    assert "need fairseq, which is not installed" in done.stderr.splitlines()[-1]
