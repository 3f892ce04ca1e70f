"""Every command of the README, typed as printed, on a small corpus and with small nets."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import PLUGIN, REPOSITORY, SPEECH

README = (REPOSITORY / "README.md").read_text()
SMALL = {
    "f0_quantization": "--cpu --max-update 4 --num-workers 0",
    "unit_resynthesis": "--cpu --max-update 4 --num-workers 0 --batch-size 2 --upsample-initial-channel 32 "
    "--discriminator-width 0.0625 --embedding-dim 8 --resblock-kernel-sizes 3 --resblock-dilation-sizes 1",
}


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    """Returns a section's code blocks of a language, continued lines joined."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block.replace("\\\n", " ") for name, block in found if name == language]


def commands(text: str, language: str = "bash") -> list[str]:
    """Returns the commands of a section's code blocks, continued lines joined."""
    return [line for block in blocks(text, language) for line in block.splitlines()]


def shell(command: str, folder: Path) -> str:
    """Runs one line in a shell that finds the installed commands."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def shrink(command: str) -> str:
    """Adds options that make a training take seconds; later options win."""
    task = re.search(r"--task (\w+)", command)
    if command.startswith("fairseq-train") and task:
        command += " " + SMALL[task[1]]
    return command


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The five steps, typed in a folder with some recordings."""
    folder = tmp_path_factory.mktemp("readme")
    for voice in ("english", "french", "russian"):
        (folder / "recordings" / voice).mkdir(parents=True)
        for path in sorted((SPEECH / voice).glob("*.flac"))[:5]:
            shutil.copy(path, folder / "recordings" / voice)
    for command in commands(section("Train on your own recordings")):
        shell(shrink(command), folder)
    return folder


def test_own_recordings_leave_the_printed_trees(trained):
    trees = blocks(section("Train on your own recordings"), "")
    named = 0
    for line in "\n".join(trees).splitlines():
        words = [word for word in line.split() if word != "…"]
        folder = trained
        for word in words:
            if word.endswith("/"):
                folder = trained / word
                assert folder.is_dir(), word
            else:
                assert (folder / word).is_file(), f"{folder.name}/{word}"
                named += 1
    assert named >= 20


def test_speaking_in_python_and_on_the_command_line(trained):
    demo = trained / "demo_output"
    demo.mkdir()
    for name in ("bundle", "data", "checkpoints"):
        (demo / name).symlink_to(trained / name)
    (trained / "examples").symlink_to(REPOSITORY / "examples")
    (trained / "fairseq_resynth").symlink_to(PLUGIN)
    binaries = Path(sys.executable).parent
    said = commands(section("Speak")) + commands(section("Compress, convert, measure"))
    for command in said:
        shell(command.replace(".venv/bin", str(binaries)), trained)
    rows = len((trained / "data" / "test.tsv").read_text().splitlines()) - 1
    assert len(list((trained / "out" / "generate").rglob("*.wav"))) == rows > 0
    assert len(list((trained / "out" / "own").rglob("*_reference.wav"))) == rows
    assert len(list((trained / "out" / "others").rglob("*.wav"))) == 2 * rows
    assert 20 < (trained / "out" / "speech.rsyn").stat().st_size < 400
    assert (trained / "out" / "speech.wav").is_file()
    assert list((trained / "out" / "russian").glob("*.wav"))
    assert (trained / "out" / "report" / "index.html").is_file()
    script = "\n".join(commands(section("Speak"), "python"))
    script += (
        "\nprint(wav.shape, wav.dtype, len(resynthesizer.convert(wav[0, 0], speaker='russian')))"
    )
    shape = shell(f"{shlex.quote(sys.executable)} -W ignore -c {shlex.quote(script)}", trained)
    assert re.search(r"\(1, 1, \d+\) float32 \d+", shape)


def test_length_and_named_files():
    assert len(README.splitlines()) < 200
    for name in re.findall(r"`((?:configs|examples|benchmarks|docs|scripts)/[\w/.-]+)`", README):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.slow
def test_demo(tmp_path):
    """The demo in a few minutes: all its steps; whether the model is good, its own check says."""
    environment = {**os.environ, "MINUTES": "3"}
    command = ["bash", str(REPOSITORY / "scripts" / "demo.sh"), str(tmp_path / "demo")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "demo" / "index.html").stat().st_size > 1e6
    assert "mel_l1_wrong_units" in done.stdout
