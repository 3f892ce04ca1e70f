"""A Slurm cluster of one node on this machine: munged, slurmctld and slurmd in a folder of their own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={controller_port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=120
SchedulerParameters=sched_interval=1,batch_sched_delay=1,requeue_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> str:
    """What a cluster lacks on this machine, or an empty string."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def cluster(folder: Path):
    """Starts a cluster in an empty folder and sets SLURM_CONF until the block ends."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o400)
    host, ports = socket.gethostname().partition(".")[0], (free_port(), free_port())
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, controller_port=ports[0], node_port=ports[1])
    )
    os.environ["SLURM_CONF"] = str(configuration)
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    try:
        munge = [f"--{option}={folder / name}" for option, name in files.items()]
        subprocess.run(["munged", "--force", *munge], check=True, timeout=60)
        subprocess.run(["slurmctld", "-f", configuration], check=True, timeout=60)
        subprocess.run(["slurmd", "-f", configuration], check=True, timeout=60)
        wait_for(lambda: "idle" in output("sinfo", "-h", "-o", "%T"), "the node to become idle")
        yield
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(int((folder / name).read_text()), signal.SIGTERM)
        del os.environ["SLURM_CONF"]


def output(*command: object, **options) -> str:
    """What a command prints; raises AssertionError with its messages if it fails."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def wait_for(condition, what: str, seconds: float = 300) -> None:
    """Waits until a function returns something true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)


def state(job: str) -> str:
    """The state of a job and of all its array tasks, such as COMPLETED or PENDING,RUNNING."""
    lines = output("scontrol", "show", "job", job).split()
    return ",".join(sorted({line[9:] for line in lines if line.startswith("JobState=")}))


def wait_for_end(job: str, seconds: float = 600) -> str:
    """The state in which a job ended."""
    wait_for(
        lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(state(job).split(",")), job, seconds
    )
    return state(job)
