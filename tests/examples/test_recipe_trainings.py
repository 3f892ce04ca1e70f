"""Which trainings the recipes and the demo start, with stand-ins for the programs that take time."""

import os
import subprocess

import pytest
from hydra.errors import ConfigCompositionException
from small_corpus import REPOSITORY
from training_configs import composed

from fairseq_resynth.cli.main import parser_of

EXAMPLES = REPOSITORY / "examples"
# Functions that bash takes from its environment in place of the programs.
PROGRAMS = {
    "resynth": """
        printf '%s\\0' "$@" >> "$CALLS.resynth"
        printf '\\n' >> "$CALLS.resynth"
        local outdir; outdir=$(option --outdir "$@")
        case $1 in
        user-dir) echo /plugin ;;
        manifest)
            mkdir -p "$outdir"
            for split in train valid test; do
                for suffix in tsv units speaker; do echo 1 1 > "$outdir/$split.$suffix"; done
            done ;;
        kmeans) touch "$(option --out "$@")" ;;
        esac""",
    "fairseq-hydra-train": """
        local argument folder
        for argument; do
            printf '%s\\0' "$argument" >> "$CALLS"
            case $argument in checkpoint.save_dir=*) folder=${argument#*=} ;; esac
        done
        printf '\\n' >> "$CALLS"
        folder=${folder:1:-1} folder=${folder//\\\\/}
        touch "$folder/checkpoint_last.pt" "$folder/checkpoint_best.pt"
        echo 'x | valid on x' """,
    "fairseq-preprocess": 'mkdir -p "$(option --destdir "$@")"',
    "fairseq-interactive": ":",
    "python": "case $* in *torch*) echo bfloat16 ;; *'/ 60'*) echo 0.5 ;; esac",
    "bash": ":",
    "option": """
        local name=$1; shift
        while [ $# -gt 1 ]; do
            if [ "$1" = "$name" ]; then echo "$2"; return; fi
            shift
        done""",
}
RECIPES = {
    "asterisk": ("asterisk_f0_vqvae", "asterisk_unit_source_filter"),
    "conversion": ("conversion_f0_vqvae", "conversion_unit_source_filter"),
    "demo": ("demo_f0_vqvae", "demo_unit_source_filter"),
    "gslm": ("gslm_unit_hifigan", "gslm_language_model"),
    "hylee": ("paper_f0_vqvae", "paper_unit_hifigan"),
    "librilight": ("paper_content_vqvae",),
    "ljspeech": ("paper_f0_vqvae", "paper_unit_hifigan"),
    "own_data": ("paper_f0_vqvae", "paper_unit_hifigan"),
    "vctk": ("paper_f0_vqvae", "paper_unit_hifigan"),
}


def read_calls(path):
    """The arguments of every call that a stand-in has written to a file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.rstrip("\0").split("\0") for line in lines]


@pytest.fixture
def start(tmp_path):
    """Runs a script with the stand-ins; returns the process and the arguments of each training."""
    corpus = tmp_path / "corpus"
    for folder in ("wavs", "wav48"):
        (corpus / folder).mkdir(parents=True)

    def run(script, *arguments, **settings):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        environment = {
            f"BASH_FUNC_{name}%%": f"() {{ {body}\n}}" for name, body in PROGRAMS.items()
        }
        environment |= {"CALLS": str(calls), "SOURCE": str(corpus), "SPEECH": str(corpus)}
        done = subprocess.run(
            ["bash", str(script), *map(str, arguments)],
            env={**os.environ, **environment, "DEVICE": "cpu", **settings},
            capture_output=True,
            text=True,
        )
        return done, read_calls(calls)

    return run


def recipe(name, corpus, out):
    """The script of a recipe and its arguments."""
    if name == "demo":
        return REPOSITORY / "scripts" / "demo.sh", out
    sources = [corpus] if name in ("own_data", "gslm") else []
    return EXAMPLES / name / "run.sh", *sources, out


@pytest.mark.parametrize("name", RECIPES)
def test_every_training_is_a_configuration_with_paths_device_and_settings(name, start, tmp_path):
    out = tmp_path / "it's (1), a=b"
    (out / "g722").mkdir(parents=True)
    settings = {"OVERRIDES": "dataset.batch_size=4\n optimization.max_update=7"}
    settings["F0_OVERRIDES"] = settings["VOCODER_OVERRIDES"] = "dataset.batch_size=3"
    done, trainings = start(*recipe(name, tmp_path / "corpus", out), **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    names = []
    for arguments in trainings:
        assert arguments[:3:2] == ["--config-dir", "--config-name"]
        assert arguments[1] == str(REPOSITORY / "configs")
        names.append(arguments[3])
        cfg = composed(*arguments[3:])
        paths = [cfg.task.data, cfg.checkpoint.save_dir]
        assert all(path.startswith(f"{out}/") and os.path.isdir(path) for path in paths)
        assert cfg.common.user_dir == "/plugin" and cfg.common.cpu is True
        assert cfg.optimization.max_update == 7
        own = "language_model" not in names[-1] and "content" not in names[-1]
        assert cfg.dataset.batch_size == (3 if own else 4)
    assert tuple(names) == RECIPES[name]
    if name == "demo":
        assert (cfg.task.autocast, cfg.optimization.stop_time_hours) == ("bfloat16", 0.5)
    for verb, *arguments in read_calls(tmp_path / "calls.resynth"):
        parser_of(verb).parse_args(arguments)
    again, trainings = start(*recipe(name, tmp_path / "corpus", out), **settings)
    assert again.returncode == 0 and trainings == []
    assert again.stdout.count("whose training has finished") == len(names)


def test_a_slow_machine_gets_a_shorter_demo(start, tmp_path):
    lengths = {}
    for seconds in ("5", "60"):
        out = tmp_path / seconds
        done, trainings = start(*recipe("demo", tmp_path, out), FIRST_STEP=seconds)
        assert done.returncode == 0, done.stderr[-2000:]
        verbs = read_calls(tmp_path / "calls.resynth")
        conversions = [
            verb[verb.index("-n") + 1] if "-n" in verb else "" for verb in verbs if "--vc" in verb
        ]
        lengths[seconds] = composed(*trainings[0][3:]).optimization.max_update, conversions
        assert ("This machine is slow: speaking took 60 s" in done.stdout) == (seconds == "60")
        assert any(verb[0] == "fit-codec" for verb in verbs) == (seconds == "5")
        (tmp_path / "calls.resynth").unlink()
    assert lengths == {"5": (600, ["", ""]), "60": (150, ["2", "2"])}


def test_another_configuration_and_a_mistyped_one(start, tmp_path):
    call = recipe("ljspeech", tmp_path, tmp_path / "out")
    done, trainings = start(*call, F0_CONFIG="asterisk_f0_vqvae", VOCODER_CONFIG="paper_hifigan")
    assert [arguments[3] for arguments in trainings] == ["asterisk_f0_vqvae"]
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(
        "ljspeech: error: no configuration is called paper_hifigan; configs/ has "
    )
    assert "paper_unit_hifigan" in error


@pytest.mark.parametrize(
    ("name", "old", "value", "new"),
    [
        ("vctk", "UPDATES", "20", 'use VOCODER_OVERRIDES="optimization.max_update=20" instead'),
        ("demo", "F0_UPDATES", "20", 'use F0_OVERRIDES="optimization.max_update=20" instead'),
        ("own_data", "VOCODER_OPTIONS", "--lr 1", "use VOCODER_OVERRIDES, which takes Hydra"),
        ("own_data", "F0_OPTIONS", "--lr 1", "use F0_OVERRIDES, which takes Hydra overrides"),
        ("hylee", "HYLEE_K", "500", "use K=500 instead"),
        ("librilight", "VQVAE_UPDATES", "9", 'use VQVAE_OVERRIDES="optimization.max_update=9"'),
        ("librilight", "VQVAE_OPTIONS", "--lr 1", "use VQVAE_OVERRIDES, which takes Hydra"),
        ("gslm", "LM_UPDATES", "9", 'use LM_OVERRIDES="optimization.max_update=9" instead'),
        ("gslm", "LM_OPTIONS", "--lr 1", "use LM_OVERRIDES, which takes Hydra overrides"),
        ("conversion", "ARCH", "unit_vocos", 'use VOCODER_OVERRIDES="model._name=unit_vocos"'),
        ("asterisk", "UNITS", "logmel", 'use CONTENT="--feature-type logmel" instead'),
        ("asterisk", "CONFIG", "a", "use VOCODER_CONFIG=a instead"),
    ],
)
def test_a_setting_of_earlier_versions_names_the_new_one(name, old, value, new, start, tmp_path):
    done, trainings = start(*recipe(name, tmp_path, tmp_path / "out"), **{old: value})
    assert done.returncode == 1 and not trainings and not (tmp_path / "out").exists()
    prefix = "demo.sh" if name == "demo" else name
    assert done.stderr.startswith(f"{prefix}: error: the setting {old} no longer exists; {new}")
    assert done.stderr.count("\n") == 1


def test_a_failed_training_and_missing_data_are_one_sentence(start, tmp_path, monkeypatch):
    failing = "echo 'Traceback …'; echo 'ValueError: found 3, expected 4.'; return 1"
    monkeypatch.setitem(PROGRAMS, "fairseq-hydra-train", failing)
    done, _ = start(*recipe("vctk", tmp_path, tmp_path / "out"))
    log = tmp_path / "out" / "f0_checkpoints" / "train.log"
    sentence = f"vctk: error: the training failed, see {log}: ValueError: found 3, expected 4.\n"
    assert (done.returncode, done.stderr) == (1, sentence)
    assert "Traceback" in log.read_text()
    monkeypatch.setitem(PROGRAMS, "resynth", "[ $1 != user-dir ] || echo /plugin")
    done, _ = start(*recipe("vctk", tmp_path, tmp_path / "new"))
    assert done.stderr == f"vctk: error: the data directory {tmp_path}/new/data does not exist\n"


def test_an_override_that_fits_no_value_is_refused():
    with pytest.raises(ConfigCompositionException, match="Could not override 'optimization.lrr'"):
        composed("paper_unit_hifigan", "optimization.lrr=3")


def test_shell_scripts_parse():
    scripts = [*REPOSITORY.glob("scripts/*.sh"), *EXAMPLES.rglob("*.sh")]
    for script in [*scripts, *EXAMPLES.rglob("*.sbatch")]:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
