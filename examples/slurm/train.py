"""Trains over several nodes, one process a GPU: submitit starts tasks, fairseq reads its ranks from SLURM_*.

    python examples/slurm/train.py --nodes 4 --gpus 8 --partition gpu -- fairseq-train PACK …
    python examples/slurm/train.py --gpus 2 --local --cpu -- fairseq-train PACK …    # two processes here

Needs submitit: pip install 'fairseq_resynth[slurm]'. The same command continues from checkpoint_last.pt.
"""

import argparse
import subprocess
import sys

import submitit
from jobs import add_job_options, make_executor, report  # examples/slurm/jobs.py


def rank_options(rank: int, world_size: int, port: int, on_slurm: bool) -> list[str]:
    """Returns what tells fairseq-train its place.

    Under Slurm fairseq reads rank, device and first node from SLURM_* and `scontrol`, all but the sizes.
    """
    options = ["--distributed-world-size", str(world_size)]
    if on_slurm:
        return [*options, "--distributed-port", str(port)]
    return [
        *options, "--distributed-rank", str(rank), "--distributed-no-spawn",
        "--distributed-init-method", f"tcp://127.0.0.1:{port}",
    ]  # fmt: skip


def run_rank(command: list[str], port: int, on_slurm: bool) -> None:
    """Runs fairseq-train in one task; its output is the task's log.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    task = submitit.JobEnvironment()
    options = rank_options(task.global_rank, task.num_tasks, port, on_slurm)
    subprocess.run([*command, *options], check=True)


def main() -> int:
    """Submits the training and waits for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="of a node (%(default)s)")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a process (%(default)s)")
    parser.add_argument("--port", type=int, default=29500, help="of rank 0 (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="train without GPUs, over gloo")
    add_job_options(parser)
    args = parser.parse_args()
    command = list(args.command)
    if args.cpu:
        # pytorch_ddp would be given the number of a GPU
        command += ["--cpu", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    executor = make_executor(
        args,
        nodes=args.nodes,
        tasks_per_node=args.gpus,
        cpus_per_task=args.cpus,
        gpus_per_node=0 if args.cpu else args.gpus,
    )
    job = executor.submit(run_rank, command, args.port, not args.local)
    return report([job])


if __name__ == "__main__":
    sys.exit(main())
