"""Array jobs and training through submitit's local executor, and the places of processes."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_corpus import REPOSITORY, write_data
from training_configs import CONFIGS, composed

from fairseq_resynth.data.pitch.extraction import F0Options
from fairseq_resynth.preparation.f0 import build_f0

pytest.importorskip("submitit")
FOLDER = REPOSITORY / "examples" / "slurm"
BIN = os.path.dirname(sys.executable)
TINY = (
    "optimization.max_update=1 dataset.batch_size=2 dataset.num_workers=0 "
    "dataset.required_batch_size_multiple=1 dataset.disable_validation=true "
    "++model.embedding_dim=8 ++model.upsample_initial_channel=32 ++model.resblock_kernel_sizes=3 "
    "++model.resblock_dilation_sizes='1,3' ++criterion.discriminator_width=0.0625 "
    "++task.segment_size=2560"
).split()


def run(script: str, folder, *arguments, check: bool = True) -> subprocess.CompletedProcess:
    """Runs a script of the example here instead of on Slurm."""
    command = [sys.executable, FOLDER / script, "--local", "--logs", folder / "logs", *arguments]
    environment = {**os.environ, "TQDM_DISABLE": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=900
    )
    if check and done.returncode:
        logs = [path.read_text()[-3000:] for path in sorted((folder / "logs").glob("*.err"))]
        raise AssertionError("\n".join([done.stdout, done.stderr, *logs]))
    return done


def test_an_array_of_two_tasks_prepares_what_one_run_does(tmp_path):
    data = write_data(tmp_path / "data", {"train": [8000, 9600, 8800, 7200]})
    verb = ["resynth", "f0", data, "--method", "dio", "--workers", 1, "--accept-unvoiced"]
    done = run("jobs.py", tmp_path, "--shards", 2, "--", *verb)
    assert "2 of 2 jobs finished" in done.stdout
    joined = (data / "f0" / "train.npy").read_bytes()
    (data / "f0" / "train.npy").unlink()
    build_f0(data, "train", F0Options("dio"), accept_unvoiced=True)
    assert (data / "f0" / "train.npy").read_bytes() == joined


def test_a_failed_task_is_named_with_its_log(tmp_path):
    done = run("jobs.py", tmp_path, "--shards", 1, "--", "resynth", "f0", tmp_path, check=False)
    assert done.returncode == 1 and "0 of 1 jobs finished" in done.stdout
    log = done.stderr.rpartition("log: ")[2].strip()
    assert "has none of train.tsv" in Path(log).read_text()


@pytest.mark.slow
def test_two_processes_train(tmp_path):
    data = write_data(tmp_path / "data", {"train": [8000] * 4, "valid": [8000]})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        "fairseq-hydra-train", "--config-dir", CONFIGS, "--config-name", "paper_unit_hifigan",
        f"task.data={data}", f"checkpoint.save_dir={tmp_path / 'run'}", *TINY,
    ]  # fmt: skip
    run("train.py", tmp_path, "--gpus", 2, "--cpu", "--port", port, "--", *command)
    state = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["distributed_training"]["distributed_world_size"] == 2
    assert state["optimizer_history"][-1]["num_updates"] == 1
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.out")]
    assert len([log for log in logs if "training on 2 devices" in log]) == 1


def test_processes_learn_their_place_from_overrides(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("slurm_train", FOLDER / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    assert_place(composed("paper_unit_hifigan", *train.place_overrides(11, 3, 16, "node07:1234")))


def assert_place(cfg) -> None:
    place = cfg.distributed_training
    assert (place.distributed_world_size, place.distributed_rank, place.device_id) == (16, 11, 3)
    assert place.distributed_init_method == "tcp://node07:1234"
    assert place.distributed_no_spawn


def test_the_batch_script_gives_every_process_its_place(tmp_path):
    """With stand-ins for scontrol and for srun, which starts the twelfth of sixteen processes."""
    stand_ins = {
        "scontrol": '[ "$3" = "node[07-08]" ] && printf "node07\\nnode08\\n"',
        "srun": '[ "$1" = --kill-on-bad-exit=1 ] && shift; SLURM_PROCID=11 SLURM_LOCALID=3 exec "$@"',
    }
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    command = ["bash", FOLDER / "train.sbatch", "printf", "%s\n", "task.data=PACK"]
    slurm = {"SLURM_NTASKS": "16", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_ID": "7"}
    environment = {
        **os.environ,
        **slurm,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PORT": "1234",
    }
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    cfg = composed("paper_unit_hifigan", *started.stdout.splitlines())
    assert_place(cfg)
    assert cfg.task.data == "PACK"


def test_the_old_launcher_is_refused(tmp_path):
    done = run("train.py", tmp_path, "--", "fairseq-train", "PACK", check=False)
    assert done.returncode == 2
    assert "the command is fairseq-train, expected fairseq-hydra-train --config-dir" in done.stderr
