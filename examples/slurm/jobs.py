"""Run a `resynth` verb as an array job of N tasks, the I-th with `--shard I/N`; the last joins the parts.

    python examples/slurm/jobs.py --shards 32 --cpus 8 --partition cpu -- resynth f0 DATA --workers 8
    python examples/slurm/jobs.py --shards 2 --local -- resynth f0 DATA       # here, without Slurm

Needs submitit: pip install 'fairseq_resynth[slurm]'. If tasks fail, each is named with its log and the exit
status is 1; the same command then continues, since every verb reuses the results that exist.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import submitit


def run_shard(command: list[str], index: int, count: int) -> None:
    """Runs one share of the work; its output is the log of the task."""
    subprocess.run([*command, "--shard", f"{index}/{count}"], check=True)


def make_executor(args: argparse.Namespace, **resources) -> submitit.Executor:
    """What starts the tasks: Slurm, or processes on this machine with `--local`.

    Args:
        args: options of `add_job_options`.
        resources: those of one task, as submitit names them.
    """
    executor = submitit.AutoExecutor(args.logs, cluster="local" if args.local else "slurm")
    partition = {"slurm_partition": args.partition} if args.partition else {}
    executor.update_parameters(timeout_min=args.minutes, **resources, **partition)
    return executor


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that every kind of job has."""
    parser.add_argument("--minutes", type=int, default=24 * 60, help="time limit (%(default)s)")
    parser.add_argument("--partition", help="partition of the Slurm cluster")
    parser.add_argument("--local", action="store_true", help="start processes here, without Slurm")
    parser.add_argument("--logs", type=Path, default=Path("slurm_logs"), help="(%(default)s)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the command, after --")


def report(jobs: list[submitit.Job]) -> int:
    """Waits for the jobs, names those that failed, and returns the exit status."""
    failed = 0
    for job in jobs:
        if error := job.exception():
            failed += 1
            print(f"job {job.job_id} failed: {error}\n  log: {job.paths.stderr}", file=sys.stderr)
    print(f"{len(jobs) - failed} of {len(jobs)} jobs finished")
    return 1 if failed else 0


def main() -> int:
    """Submits the array and waits for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, required=True, metavar="N", help="number of tasks")
    parser.add_argument("--cpus", type=int, default=8, help="cores per task (%(default)s)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs per task (%(default)s)")
    parser.add_argument("--at-once", type=int, default=256, help="tasks at a time (%(default)s)")
    add_job_options(parser)
    args = parser.parse_args()
    if args.shards < 1:
        parser.error(f"--shards is {args.shards}, expected 1 or more")
    executor = make_executor(args, cpus_per_task=args.cpus, gpus_per_node=args.gpus)
    if not args.local:
        executor.update_parameters(slurm_array_parallelism=args.at_once)
    numbers = range(1, args.shards + 1)
    print(f"{args.shards} tasks of {shlex.join(args.command)} --shard I/{args.shards}", flush=True)
    copies = [args.command] * args.shards, numbers, [args.shards] * args.shards
    return report(executor.map_array(run_shard, *copies))


if __name__ == "__main__":
    sys.exit(main())
