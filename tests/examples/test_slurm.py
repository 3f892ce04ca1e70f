"""Array jobs and training through submitit's local executor; fairseq's reading of SLURM_*."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq.dataclass.configs import CommonConfig, DistributedTrainingConfig
from fairseq.distributed.utils import infer_init_method
from omegaconf import OmegaConf
from small_corpus import REPOSITORY, train_arguments, write_data

from fairseq_resynth.data.pitch.extraction import F0Options
from fairseq_resynth.preparation.f0 import build_f0

pytest.importorskip("submitit")
FOLDER = REPOSITORY / "examples" / "slurm"
BIN = os.path.dirname(sys.executable)


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


def test_two_processes_train(tmp_path):
    data = write_data(tmp_path / "data", {"train": [8000] * 4, "valid": [8000]})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    arguments = train_arguments(data, tmp_path / "run", "--max-update", "1", "--disable-validation")
    arguments = ["fairseq-train", *[argument for argument in arguments if argument != "--cpu"]]
    run("train.py", tmp_path, "--gpus", 2, "--cpu", "--port", port, "--", *arguments)
    state = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["distributed_training"]["distributed_world_size"] == 2
    assert state["optimizer_history"][-1]["num_updates"] == 1
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.out")]
    assert len([log for log in logs if "training on 2 devices" in log]) == 1


@pytest.mark.parametrize(("node", "local"), [(0, 0), (1, 1)])
def test_fairseq_finds_its_rank_in_slurms_environment(tmp_path, monkeypatch, node, local):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "node[07-08]" ] && printf "node07\\nnode08\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slurm = {"STEP_NODELIST": "node[07-08]", "NNODES": 2, "NTASKS": 4, "NTASKS_PER_NODE": 2}
    place = {"PROCID": 2 * node + local, "LOCALID": local, "NODEID": node}
    for name, value in {**slurm, **place}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    whole = {"common": CommonConfig, "distributed_training": DistributedTrainingConfig}
    whole = {name: OmegaConf.structured(part) for name, part in whole.items()}
    cfg = OmegaConf.create(whole).distributed_training
    cfg.distributed_world_size, cfg.distributed_port = 4, 29500
    infer_init_method(cfg)
    assert cfg.distributed_init_method == "tcp://node07:29500"
    assert (cfg.distributed_rank, cfg.device_id) == (2 * node + local, local)
    assert cfg.distributed_no_spawn
