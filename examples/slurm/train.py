"""Train on several nodes with one process per GPU; submitit starts the processes.

    python examples/slurm/train.py --nodes 4 --gpus 8 --partition gpu -- \\
        fairseq-hydra-train --config-dir configs --config-name paper_unit_hifigan task.data=PACK
    python examples/slurm/train.py --gpus 2 --local --cpu -- fairseq-hydra-train …    # two processes here

Needs submitit: pip install 'fairseq_resynth[slurm]'. The same command continues from checkpoint_last.pt.
"""

import argparse
import subprocess
import sys

import submitit
from jobs import add_job_options, make_executor, report  # examples/slurm/jobs.py


def rank_overrides(rank: int, world_size: int, port: int, on_slurm: bool) -> list[str]:
    """Hydra overrides that tell a process of the training its place.

    Under Slurm fairseq itself reads the rank, the GPU and the first node from SLURM_* and
    `scontrol`; only the number of processes and the port are missing.
    """
    values = {"distributed_world_size": world_size}
    if on_slurm:
        values |= {"distributed_port": port}
    else:
        values |= {
            "distributed_rank": rank,
            "distributed_no_spawn": "true",
            "distributed_init_method": f"tcp://127.0.0.1:{port}",
        }
    return [f"distributed_training.{name}={value}" for name, value in values.items()]


def run_rank(command: list[str], port: int, on_slurm: bool) -> None:
    """Trains in one task; its output is the log of the task."""
    task = submitit.JobEnvironment()
    place = rank_overrides(task.global_rank, task.num_tasks, port, on_slurm)
    subprocess.run([*command, *place], check=True)


def main() -> int:
    """Submits the training and waits for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs per node (%(default)s)")
    parser.add_argument("--cpus", type=int, default=8, help="cores per process (%(default)s)")
    parser.add_argument("--port", type=int, default=29500, help="port of rank 0 (%(default)s)")
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
    job = executor.submit(run_rank, command, args.port, not args.local)
    return report([job])


if __name__ == "__main__":
    sys.exit(main())
