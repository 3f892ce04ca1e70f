"""The recipe's own run.sh on a few of its prompts, laid out as fetch.sh lays them out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import REPOSITORY, SPEECH, run

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import write_audio


@pytest.fixture
def recipe(tmp_path):
    """Runs run.sh on six prompts of two voices, with tiny trainings."""
    for voice in ("english", "italian"):
        for path in sorted((SPEECH / voice).glob("*.flac"))[:6]:
            wav, rate = load_any_audio(path)
            write_audio(tmp_path / "g722" / voice / f"{path.stem}.wav", wav, rate)

    def start(**settings):
        script = REPOSITORY / "examples" / "asterisk" / "run.sh"
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DEVICE": "cpu",
            "OVERRIDES": "optimization.max_update=2 dataset.batch_size=2 dataset.num_workers=0",
            "VOCODER_OVERRIDES": "++model.num_layers=1 ++task.segment_size=2560",
            "CONTENT": "--feature-type logmel",
            "K": "20",
            **settings,
        }
        done = subprocess.run(
            ["bash", str(script), str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    return start


@pytest.mark.slow
def test_run(recipe, tmp_path):
    recipe()
    assert len(list((tmp_path / "resynthesized").rglob("*.wav"))) >= 1
    for report in ("report", "report_converted"):
        assert (tmp_path / report / "index.html").is_file()
    assert (tmp_path / "bundle" / "config.json").is_file()
    run("resynth", "synthesize", "--bundle", tmp_path / "bundle", "--input", tmp_path / "data",
        "--outdir", tmp_path / "again")  # fmt: skip


@pytest.mark.slow
def test_run_in_given_minutes(recipe, tmp_path):
    """The probe plans the updates; the bundles of last and of averaged weights are measured in one run."""
    tiny = (
        "++model.dim=16 ++model.intermediate_dim=16 ++model.num_layers=1 ++task.segment_size=2560"
    )
    recipe(
        MINUTES="100", COMPARE="", VOCODER_OVERRIDES=f"{tiny} criterion.discriminator_width=0.0625"
    )
    plan = dict(pair.split("=") for pair in (tmp_path / "plan.txt").read_text().split())
    assert 0 < int(plan["criterion.discriminator_start"]) < int(plan["optimization.max_update"])
    summary = (tmp_path / "comparison" / "summary.txt").read_text()
    parts = ["resynthesis", "conversions", "units_trained", "units_averaged"]
    assert [line[3:] for line in summary.splitlines() if line.startswith("== ")] == parts
    assert "figures are missing" not in summary
    for name in parts:
        assert (tmp_path / "comparison" / name / "index.html").is_file()
    again = recipe(
        MINUTES="100", COMPARE="", VOCODER_OVERRIDES=f"{tiny} criterion.discriminator_width=0.0625"
    )
    assert again.stdout.count("whose training has finished") == 2


def test_tux_paints_voices_with_their_texts(tmp_path):
    stamps = tmp_path / "unpacked" / "usr" / "share" / "tuxpaint" / "stamps" / "animals"
    stamps.mkdir(parents=True)
    for name in ("cat", "dog"):
        for language in ("fr", "es"):
            (stamps / f"{name}_desc_{language}.ogg").write_bytes(b"OggS")
    (stamps / "cat.txt").write_text("A cat.\nfr.utf8=Un chat.\nes.utf8=Un gato.\n")
    script = REPOSITORY / "examples" / "asterisk" / "tuxpaint.py"
    command = [sys.executable, script, tmp_path / "unpacked", tmp_path / "out", "--languages", "fr"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tuxpaint_fr: 1 clips, 1 without a text\n"
    assert (
        tmp_path / "out" / "transcripts.tsv"
    ).read_text() == "tuxpaint_fr/animals_cat\tUn chat.\n"
    assert "dog_desc_fr.ogg" in (tmp_path / "out" / "dropped.tsv").read_text()
    assert [path.name for path in (tmp_path / "out").rglob("*.ogg")] == ["animals_cat.ogg"]
