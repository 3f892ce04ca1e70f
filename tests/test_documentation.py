"""Every command of README and docs, typed as printed, on a small corpus and with small nets."""

import contextlib
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import PLUGIN, REPOSITORY, SPEECH

from fairseq_resynth.cli.main import VERBS, main, parser_of

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
LANGUAGES = ("english", "french", "russian")
SMALL = (
    "common.cpu=true optimization.max_update=4 dataset.num_workers=0 common.tensorboard_logdir=null"
)
SMALL_MODEL = (
    "dataset.batch_size=2 +criterion.discriminator_width=0.0625 +model.embedding_dim=8 "
    "+model.upsample_initial_channel=32 +model.resblock_kernel_sizes=3 "
    "\"+model.resblock_dilation_sizes='1,3,5'\""
)
# Commands that do not run here, by how they begin, with the reason and where they are tested otherwise.
NOT_RUN = {
    "bash scripts/test.sh": "runs this test",
    ".venv/bin/": "tests and checks of this repository",
    "pytest tests/": "slow tests of this repository",
    "bash scripts/demo.sh": "minutes; test_demo",
    "pip install 'fairseq_resynth[eval]'": "installs",
    "bash scripts/gpu.sh": "a GPU; tests/gpu runs it with tiny sizes",
    "STEPS=": "a GPU; tests/gpu",
    "resynth play": "serves until it is stopped; tests/play",
    "curl ": "needs the address of a running page; tests/play",
    "ffmpeg ": "another program; tests/codec runs both halves of the pipe",
    "cat speech.rsyn |": "needs a sound card; tests/codec runs it without",
    "resynth live": "needs a sound card; tests/cli has one that exists only there",
    "resynth convert IN.wav --bundle VECTOR_BUNDLE": "a model on vectors; tests/conversion",
    "fairseq-hydra-train --config-dir configs --config-name paper_unit_hifigan task.data=$PWD/DATA "
    "++task.speaker_input": "a second training; tests/training",
    "fairseq-hydra-train --config-dir configs --config-name paper_unit_hifigan task.data=$PWD/PACK": (
        "a second training; tests/data trains on packed files"
    ),
    "resynth kmeans DATA --feature-type hubert": "weights of HuBERT; tests/encoders",
    "resynth quantize DATA --feature-type hubert": "weights of HuBERT; tests/encoders",
    "resynth kmeans --centroids km.npy --feature-type hubert": "weights of HuBERT; tests/encoders",
    'python -c "import joblib': "a pickle that is not here",
    "python versa/bin/scorer.py": "VERSA; tests/evaluation/test_versa.py reads what it writes",
    "resynth preprocess --srcdir expresso": "Expresso",
    "resynth manifest expresso": "Expresso",
    "resynth evaluate --bundle BUNDLE --content-checkpoint ENCODER": "Expresso or LibriSpeech",
    "resynth evaluate --bundle examples/asterisk/bundle": "Whisper and all prompts of Asterisk",
    "resynth evaluate --generated asterisk/report/resynthesis/english": "of the command before",
    "resynth disentanglement DATA": "a trained voice; test_trained_disentanglement.py",
    "python benchmarks/token_streams.py": "all released codes",
    "resynth codec-bench examples/asterisk/held_out": "minutes; tests/codec has less speech",
    "resynth import": "published checkpoints; tests/interop makes some of their layouts",
    "resynth listening-test --outdir TEST --collect": "answers of listeners; tests/evaluation",
}
SLOW = {"evaluation.md", "voices.md", "codec.md", "live.md"}  # pages that take over ten seconds


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands(page: Path) -> list[str]:
    """The commands of a page's shell blocks without their comments, continued lines joined."""
    lines = "\n".join(blocks(page.read_text(), "bash")).replace("\\\n", " ").splitlines()
    bare = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in lines)
    return [line for line in bare if line]


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def shell(command: str, folder: Path) -> str:
    """Runs one line in a shell that finds the installed commands."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def run(command: str, folder: Path) -> None:
    """Runs one line: `resynth` in this process, which has imported everything, others in a shell."""
    if re.match(r"resynth [\w-]+ ", command) and not re.search(r"[|<>;$]", command):
        with contextlib.chdir(folder):
            words = [glob.glob(word) if "*" in word else [word] for word in shlex.split(command)]
            try:
                status = main(sum(words, [])[1:])
            except SystemExit as end:  # of options that print something and end, --list-metrics
                status = end.code
            assert status == 0, command
        return
    if command.startswith("fairseq-hydra-train"):
        command += f" {SMALL}" + (f" {SMALL_MODEL}" if "unit_hifigan" in command else "")
    shell(command, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The five steps of docs/training.md, typed in a folder with some recordings."""
    folder = tmp_path_factory.mktemp("documentation")
    for voice in LANGUAGES:
        (folder / "recordings" / voice).mkdir(parents=True)
        for path in sorted((SPEECH / voice).glob("*.flac"))[:5]:
            shutil.copy(path, folder / "recordings" / voice)
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / "fairseq_resynth").symlink_to(PLUGIN)
    for command in commands(REPOSITORY / "docs" / "training.md"):
        run(command, folder)
    return folder


@pytest.fixture
def place(trained, tmp_path) -> Path:
    """A folder with what the pages' commands name, as it is after training."""
    for name in ("configs", "examples", "fairseq_resynth", "benchmarks"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "demo_output").mkdir()
    copies = {
        "bundle": ["BUNDLE", "demo_output/bundle", "K50", "K100", "K200"],
        "data": ["DATA", "demo_output/data"],
        "checkpoints": ["checkpoints", "demo_output/checkpoints"],
    }
    for source, targets in copies.items():
        for target in targets:
            shutil.copytree(trained / source, tmp_path / target)
    shutil.copy(trained / "km.safetensors", tmp_path)
    shutil.copy(trained / "f0_checkpoints" / "checkpoint_best.pt", tmp_path / "F0_CHECKPOINT")
    wav, rate = soundfile.read(SPEECH / "french" / "call-from.flac")
    for name in ("IN.wav", "speech.wav", "IN_DIR/one.wav", "DIR/one.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, wav, rate)
    return tmp_path


def prepare_codec(place: Path) -> None:
    """The released units that docs/codec.md fits on, a few lines of them."""
    lines = (REPOSITORY / "tests/codec/data/vctk_hubert100.txt").read_text().splitlines()[:24]
    (place / "vctk_hubert100_val.txt").write_text("\n".join(lines) + "\n")
    (place / "tokens.txt").write_text("1 2 3 4 5 6 7 8\n" * 8)


def prepare_evaluation(place: Path) -> None:
    """Two systems, conversions, references, coded files, transcripts and reports of the test split."""
    lines = (place / "DATA" / "test.tsv").read_text().splitlines()
    names = [str(Path(line.split("\t")[0]).with_suffix("")) for line in lines[1:]]
    for name in names:
        wav, rate = soundfile.read(Path(lines[0]) / f"{name}.flac")
        for folder in ("WAVS", "OTHER"):
            (place / folder / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / folder / f"{name}.wav", wav, rate)
    (place / "text.tsv").write_text("".join(f"{name}\tsome words\n" for name in names))
    run("resynth synthesize --bundle BUNDLE --input DATA --outdir OUT", place)
    run("resynth synthesize --bundle BUNDLE --input DATA --outdir VC --vc", place)
    run("resynth encode WAVS --speaker-from-folder --bundle BUNDLE -o CODES", place)
    for report in ("REPORT_A", "REPORT_B"):
        run(
            f"resynth evaluate --generated OTHER --reference WAVS --metrics mel --outdir {report}",
            place,
        )


def prepare_content_encoders(place: Path) -> None:
    """An alignment of every utterance with two phones and a silence."""
    rows = []
    for split in ("train", "valid", "test"):
        for line in (place / "DATA" / f"{split}.tsv").read_text().splitlines()[1:]:
            path, samples = line.split("\t")
            name, third = str(Path(path).with_suffix("")), int(samples) / 48000
            for index, phone in enumerate(("AA", "IY", "SIL")):
                rows.append(f"{name}\t{index * third}\t{(index + 1) * third}\t{phone}\n")
    (place / "phones.tsv").write_text("".join(rows))


def prepare_listening_tests(place: Path) -> None:
    """Two systems and the references."""
    for folder in ("OUT", "OTHER", "WAVS"):
        (place / folder).mkdir()
        for index in range(20):
            wav = np.sin(np.arange(8000) * (index + 1) / 30) * 0.3
            soundfile.write(place / folder / f"{index}.wav", wav, 16000)


PREPARE = {
    "codec": prepare_codec,
    "evaluation": prepare_evaluation,
    "content_encoders": prepare_content_encoders,
    "listening_tests": prepare_listening_tests,
}


def check_readme(place: Path) -> None:
    assert len(list((place / "out" / "trained").rglob("*.wav"))) == 9
    assert (place / "out" / "report" / "index.html").stat().st_size > 1e5


def check_speaking(place: Path) -> None:
    rows = len((place / "demo_output" / "data" / "test.tsv").read_text().splitlines()) - 1
    assert len(list((place / "out" / "trained").rglob("*.wav"))) == 9 * 4
    assert len(list((place / "out" / "own").rglob("*_reference.wav"))) == rows > 0
    assert len(list((place / "out" / "others").rglob("*.wav"))) == 2 * rows
    assert len(list((place / "out" / "generate").rglob("*.wav"))) == rows
    assert list((place / "out" / "russian").rglob("*.wav"))


def check_codec(place: Path) -> None:
    # Of a recording that the model was fitted on.
    assert 10 < (place / "speech.rsyn").stat().st_size < 400
    assert (place / "other.wav").stat().st_size > (place / "speech.wav").stat().st_size > 1e4


CHECK = {"README": check_readme, "speaking": check_speaking, "codec": check_codec}


def cases():
    for page in PAGES:
        if page.name != "training.md" and any(map(is_run, commands(page))):
            marks = [pytest.mark.slow] if page.name in SLOW else []
            yield pytest.param(page, id=page.stem, marks=marks)


@pytest.mark.parametrize("page", cases())
def test_commands(page, place, trained):
    """The README's training steps are those of docs/training.md, which the fixture has run."""
    PREPARE.get(page.stem, lambda place: None)(place)
    steps = (
        set(commands(REPOSITORY / "docs" / "training.md")) if page.name == "README.md" else set()
    )
    for command in commands(page):
        if is_run(command) and command not in steps:
            run(command, place)
    if page.name == "README.md":
        assert len(steps & set(commands(page))) == len(steps) - 1  # fit-codec is optional there
    CHECK.get(page.stem, lambda place: None)(place)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/speaking.md",
        "docs/codec.md",
        pytest.param("docs/live.md", marks=pytest.mark.slow),
    ],
)
def test_python(page, place):
    """The pages' programs, one after another."""
    prelude = {
        "docs/codec.md": "import soundfile; wav, _ = soundfile.read('IN.wav', dtype='float32')\n"
    }
    for block in blocks((REPOSITORY / page).read_text(), "python"):
        script = prelude.get(page, "") + block
        if page == "docs/speaking.md":
            script += "\nassert wav.dtype == 'float32' and wav.size > 16000, wav.shape"
        script += "\nprint('done')"
        assert shell(f"python -W ignore -c {shlex.quote(script)}", place) == "done\n"
    if page == "README.md":
        wav, rate = soundfile.read(place / "french.wav")
        assert rate == 16000 and 2.6 < len(wav) / rate < 2.7 and 0.1 < np.abs(wav).max() <= 1


def test_training_leaves_the_printed_trees(trained):
    trees = blocks((REPOSITORY / "docs" / "training.md").read_text(), "")
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


def test_commands_that_are_not_run_are_in_the_pages():
    printed = [command for page in PAGES for command in commands(page)]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in printed), f"remove {start!r}"


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted((REPOSITORY / "examples").glob("*/README.md"))],
    ids=lambda page: "/".join(page.parts[-2:]),
)
def test_options_and_files_exist(page):
    """Verbs and options that a page names, also in its text, are those of the command line."""
    text = page.read_text()
    spans = re.findall(r"`(resynth [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M))
    for span in [*spans, *filter(lambda line: line.startswith("resynth "), commands(page))]:
        words = span.replace("|", " ").split()
        for verb in [words[1]] if re.fullmatch(r"[a-z0-9-]+", words[1]) else []:
            assert verb in VERBS, span
            known = options_of(verb)
            for option in re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", span):
                assert option in known, f"{span}: resynth {verb} has no {option}"
    ours = text if page.stem != "original_commands" else ""  # it names files of the original
    for name in re.findall(
        r"`((?:configs|examples|benchmarks|docs|scripts|tests|fairseq_resynth)/[\w/.-]+)`", ours
    ):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / name).exists(), name


def options_of(verb: str) -> set[str]:
    """The option strings of a verb."""
    return set(parser_of(verb)._option_string_actions)


@pytest.mark.slow
def test_demo(tmp_path):
    """The demo in a few minutes: all its steps; whether the model is good, its own check says."""
    environment = {**os.environ, "MINUTES": "3"}
    command = ["bash", str(REPOSITORY / "scripts" / "demo.sh"), str(tmp_path / "demo")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "demo" / "index.html").stat().st_size > 1e6
    assert "mel_l1_wrong_units" in done.stdout
