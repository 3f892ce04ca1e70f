"""The files of configs/ compose, say what training does, and work from any folder."""

import re

import pytest
from fairseq import tasks
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf
from small_corpus import run
from training_configs import CONFIGS, composed

import fairseq_resynth.tasks  # noqa: F401  registers the plugin

PARTS = {"base", "paper_optimizer", "log_f0_vqvae", "unit_source_filter"}  # included by others
TRAININGS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in PARTS)


def values(node: dict, prefix: str = "") -> dict[str, object]:
    """The values of a nested dictionary by their dotted names."""
    found = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= values(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def included(name: str) -> list[dict]:
    """A file and those that it includes, as they are written."""
    content = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"), resolve=False)
    others = [entry for entry in content.pop("defaults", []) if entry != "_self_"]
    content.pop("hydra", None)
    return [content, *(part for other in others for part in included(other))]


@pytest.mark.parametrize("name", TRAININGS)
def test_every_value_that_a_file_sets_reaches_the_training(name):
    """fairseq lets included files win over the file that includes them, so none may set a value again."""
    training = values(OmegaConf.to_container(composed(name), enum_to_str=True))
    training["common.user_dir"] = values(included("base")[0])["common.user_dir"]
    for part in included(name):
        for key, value in values(part).items():
            assert training[key] == value, key


@pytest.mark.parametrize("name", TRAININGS)
def test_values_exist_in_the_plugin(name):
    """fairseq takes over misspelled names of a model, a task or a criterion without a word."""
    cfg = composed(name)
    sections = ("task", "model", "criterion", "optimizer", "lr_scheduler")
    given = {section: set(cfg[section]) for section in sections}
    for section in sections:
        cfg[section] = {"_name": cfg[section]._name}
    add_defaults(cfg)
    for section in sections:
        assert given[section] <= set(cfg[section]), section


@pytest.mark.parametrize("name", ["paper_f0_vqvae", "paper_content_vqvae", "paper_unit_hifigan"])
def test_a_missing_data_directory_is_named_with_the_command_that_makes_it(name, tmp_path):
    cfg = composed(name, f"task.data={tmp_path / 'nowhere'}")
    add_defaults(cfg)
    with pytest.raises(
        FileNotFoundError, match="nowhere does not exist. Make it with `resynth man"
    ):
        tasks.setup_task(cfg.task)


def test_the_plugin_is_found_from_any_folder_and_nothing_is_written_there(tmp_path):
    done = run(
        "fairseq-hydra-train", "--config-dir", CONFIGS, "--config-name", "paper_unit_hifigan",
        "common.cpu=true", f"checkpoint.save_dir={tmp_path / 'out'}", check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "\nerror: the data directory data does not exist." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_that_the_configurations_name_exist():
    for path in CONFIGS.glob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# "), f"{path.name}: the first line says what the file is for"
        for name in re.findall(r"(?:docs|examples|benchmarks|scripts|tests)/[\w/.]*\w", text):
            assert (CONFIGS.parent / name).exists(), f"{path.name}: {name}"
        for name in re.findall(r"^# .*\b((?:paper|asterisk)_\w+)", text, re.MULTILINE):
            assert (CONFIGS / f"{name}.yaml").exists(), f"{path.name}: {name}"
