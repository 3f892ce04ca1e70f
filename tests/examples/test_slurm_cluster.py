"""The scripts of examples/slurm on a real Slurm: slurmctld and slurmd on this machine, for the tests."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from slurm_cluster import cluster, missing_programs, output, state, wait_for, wait_for_end
from small_corpus import REPOSITORY, write_data
from test_slurm import TINY
from training_configs import CONFIGS

FOLDER = REPOSITORY / "examples" / "slurm"
ON_CPUS = ["common.cpu=true", "distributed_training.distributed_backend=gloo"]
ON_CPUS.append("distributed_training.ddp_backend=legacy_ddp")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running cluster, whose jobs find the commands of this environment."""
    if reason := missing_programs():
        pytest.skip(reason)
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch, cluster(tmp_path_factory.mktemp("slurm")):
        patch.setenv("PATH", path)
        patch.setenv("TQDM_DISABLE", "1")
        yield


def submit(folder: Path, *arguments: object) -> str:
    """Submits a batch job from a folder; returns its number."""
    (folder / "slurm_logs").mkdir(exist_ok=True)
    return output("sbatch", "--parsable", *arguments, cwd=folder)


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm_logs/*.log")))


def test_an_array_of_four_and_a_merge_give_the_bytes_of_one_run(slurm, tmp_path):
    data = write_data(tmp_path / "data", {"train": [8000, 9600, 8800, 7200, 8400], "valid": [8000]})
    verb = ["resynth", "f0", data, "--method", "dio", "--accept-unvoiced"]
    output(*verb)
    made = sorted((data / "f0").iterdir())
    alone = {path.name: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    array = submit(tmp_path, "--array=1-4", "--cpus-per-task=1", FOLDER / "prepare.sbatch", *verb)
    merge = submit(tmp_path, f"--dependency=afterok:{array}", "--output=slurm_logs/merge.log",
                   "--wrap", f"resynth merge {data}")  # fmt: skip
    assert wait_for_end(merge) == "COMPLETED", logs(tmp_path)
    assert state(array) == "COMPLETED"
    assert {path.name: path.read_bytes() for path in (data / "f0").iterdir()} == alone


def train_command(data: Path, save_dir: Path, *overrides: str) -> list[object]:
    return ["fairseq-hydra-train", "--config-dir", CONFIGS, "--config-name", "paper_unit_hifigan",
            f"task.data={data}", f"checkpoint.save_dir={save_dir}", *TINY, *ON_CPUS, *overrides]  # fmt: skip


def weights(save_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(save_dir / "checkpoint_last.pt", weights_only=True)["model"]


def test_two_tasks_train_as_one_process_on_the_joined_batch(slurm, tmp_path):
    """Tolerance 2 % of the way, as in tests/training/test_distributed.py."""
    data = write_data(tmp_path / "data", {"train": [16000, 20480, 32000, 17000], "valid": [8000]})
    three = ["optimization.max_update=3"]
    job = submit(
        tmp_path, "--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1",
        FOLDER / "train.sbatch", *train_command(data, tmp_path / "two", *three),
    )  # fmt: skip
    alone = train_command(data, tmp_path / "one", *three, "dataset.batch_size=4")
    output(*alone)
    start = train_command(
        data, tmp_path / "start", "dataset.batch_size=4", "optimization.lr=[1e-12]"
    )
    output(*start)
    assert wait_for_end(job) == "COMPLETED", logs(tmp_path)
    before, one, two = (weights(tmp_path / name) for name in ("start", "one", "two"))
    moved = sum(float(((one[name] - before[name]) ** 2).sum()) for name in one)
    apart = sum(float(((one[name] - two[name]) ** 2).sum()) for name in one)
    assert moved > 0 and (apart / moved) ** 0.5 < 0.02


def test_a_preempted_training_saves_and_goes_on(slurm, tmp_path):
    """A requeued job (SIGTERM, later SIGKILL) ends with the weights of one that nothing interrupted."""
    data = write_data(tmp_path / "data", {"train": [16000, 20480, 32000, 17000], "valid": [8000]})
    many = ["optimization.max_update=40", "checkpoint.no_epoch_checkpoints=true"]
    options = ["--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1"]
    job = submit(
        tmp_path, *options, FOLDER / "train.sbatch",
        *train_command(data, tmp_path / "preempted", *many, "checkpoint.save_interval=1000"),
    )  # fmt: skip
    wait_for(lambda: "begin training epoch 3" in logs(tmp_path), "the third epoch")
    output("scontrol", "requeue", job)
    assert wait_for_end(job) == "COMPLETED", logs(tmp_path)
    log = logs(tmp_path)
    assert "preempted: saving a checkpoint" in log
    assert re.search(
        r"Loaded checkpoint .*checkpoint_last.pt \(epoch [3-9]|[1-9]\d+ @ \d+ updates", log
    )
    again = submit(
        tmp_path, *options, FOLDER / "train.sbatch",
        *train_command(data, tmp_path / "whole", *many, "checkpoint.save_interval=1000"),
    )  # fmt: skip
    assert wait_for_end(again) == "COMPLETED", logs(tmp_path)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "preempted")
    assert all(torch.equal(one[name], two[name]) for name in one)


def directives(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {name: value for name, value in found}


def test_submitit_and_the_batch_files_ask_for_the_same(slurm, tmp_path):
    """What submitit would submit, with the numbers of the batch files, differs from them in logs alone."""
    spec = importlib.util.spec_from_file_location("slurm_jobs", FOLDER / "jobs.py")
    jobs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(jobs)
    for name, resources in (
        ("prepare.sbatch", {"cpus_per_task": 8, "gpus_per_node": 0}),
        ("train.sbatch", {"cpus_per_task": 8, "gpus_per_node": 8, "tasks_per_node": 8}),
    ):
        minutes = {"prepare.sbatch": 24 * 60, "train.sbatch": 72 * 60}[name]
        args = type(
            "Args", (), {"logs": tmp_path, "local": False, "partition": None, "minutes": minutes}
        )
        executor = jobs.make_executor(args, **resources)._executor
        ours = directives((FOLDER / name).read_text())
        theirs = directives(executor._make_submission_file_text("true", "uid"))
        hours, minutes_left, seconds = map(int, ours.pop("time").split(":"))
        assert hours * 60 + minutes_left + seconds / 60 == int(theirs["time"])
        for option in set(ours) - {"job-name", "output"}:
            assert ours[option] == theirs[option], (name, option)
