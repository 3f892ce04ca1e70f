"""Train on several nodes with one process per GPU; submitit starts the processes.

    python examples/slurm/train.py --nodes 4 --gpus 8 --partition gpu -- \\
        fairseq-hydra-train --config-dir configs --config-name paper_unit_hifigan task.data=PACK
    python examples/slurm/train.py --gpus 2 --local --cpu -- fairseq-hydra-train …    # two processes here

Needs submitit: pip install 'fairseq_resynth[slurm]'. The same command continues from checkpoint_last.pt.
"""

import argparse
import os
import subprocess
import sys

import submitit
from jobs import add_job_options, make_executor, report  # examples/slurm/jobs.py


def place_overrides(rank: int, local_rank: int, size: int, address: str) -> list[str]:
    """Hydra overrides that tell a process of the training its place.

    Args:
        rank: number of the process, from 0.
        local_rank: number of the process on its node, which is the number of its GPU.
        size: number of processes.
        address: host:port of rank 0.
    """
    values = {
        "distributed_world_size": size,
        "distributed_rank": rank,
        "device_id": local_rank,
        "distributed_no_spawn": "true",
        "distributed_init_method": f"tcp://{address}",
    }
    return [f"distributed_training.{name}={value}" for name, value in values.items()]


class Rank:
    """One process of the training, as a task of submitit; its output is the log of the task.

    submitit calls `checkpoint` before the time limit and when the job is preempted. The training has got the
    same signal and saves; the job is queued again, and the same command continues.
    """

    def __init__(self, command: list[str], port: int):
        self.command, self.port = command, port

    def __call__(self) -> None:
        task = submitit.JobEnvironment()
        # Two trainings on one node need two ports.
        port = self.port or 20000 + int("".join(filter(str.isdigit, task.job_id))) % 20000
        host = task.hostnames[0] if os.environ.get("SLURM_JOB_ID") else "127.0.0.1"
        place = place_overrides(task.global_rank, task.local_rank, task.num_tasks, f"{host}:{port}")
        subprocess.run([*self.command, *place], check=True)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)


def main() -> int:
    """Submits the training and waits for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs per node (%(default)s)")
    parser.add_argument("--cpus", type=int, default=8, help="cores per process (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port of rank 0; 0: by the job's number"
    )
    parser.add_argument("--cpu", action="store_true", help="train without GPUs, over gloo")
    add_job_options(parser)
    args = parser.parse_args()
    command = list(args.command)
    if "fairseq-train" in command[0]:
        parser.error(f"the command is {command[0]}, expected fairseq-hydra-train --config-dir …")
    if args.cpu:
        # pytorch_ddp, another backend of fairseq, would be given the number of a GPU.
        command += [
            "common.cpu=true",
            "distributed_training.distributed_backend=gloo",
            "distributed_training.ddp_backend=legacy_ddp",
        ]
    executor = make_executor(
        args,
        nodes=args.nodes,
        tasks_per_node=args.gpus,
        cpus_per_task=args.cpus,
        gpus_per_node=0 if args.cpu else args.gpus,
    )
    return report([executor.submit(Rank(command, args.port))])


if __name__ == "__main__":
    sys.exit(main())
