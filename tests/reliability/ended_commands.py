"""Runs `resynth` and `fairseq-train` in forked processes, and ends or hinders them at chosen moments.

Started as a program, it imports everything once, without starting a thread, and forks a process for each
request: a line of JSON on stdin, answered by a line on stdout. Python reports every change of names in the
file system to an audit hook (files opened for writing, renamed or removed, folders made or removed), so a
process can be killed before the n-th change, for every n. A limit on the size of files ends it in the middle
of a write, also of a library in C.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# The modules that import fairseq, or need what is not installed everywhere
FAIRSEQ = r"\.(compat|tasks|models|criterions|datasets|fairseq_models|play)\b"
KILLED: Counter = Counter()  # (command, kind of kill) -> how many were killed
KILLS = int(os.environ.get("KILLS", 50))  # at random moments, of each command


@dataclass
class Ended:
    """How a command ended: the exit status, or minus the number of the signal; and what it printed."""

    status: int
    out: str
    err: str
    changes: int  # of the file system, if it was not killed
    seconds: float


class Commands:
    """Runs commands in a folder; use it as a context manager."""

    def __init__(self, folder: Path, training: bool = False):
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        environment = {**os.environ, **threads, "TQDM_DISABLE": "1"}
        environment["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, __file__, *(["training"] if training else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def __call__(self, *words: object, **how: object) -> Ended:
        """Runs `resynth WORDS`, or `fairseq-train WORDS` if the first is that name.

        Args:
            how: `change=n` kills before the n-th change, `size=n` when a file grows beyond n bytes,
                `seconds=s` after this time; `full=n` lets no file grow beyond n bytes; `vanish=n` with
                `gone=FOLDER` removes a folder before the n-th change; `locks=False`: fcntl has none.
        """
        request = {"words": list(map(str, words)), "folder": str(self.folder), **how}
        print(json.dumps(request, default=str), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        assert answer, "the server of commands has ended"
        return Ended(**json.loads(answer))


def _train(words: list[str]) -> int:
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli.train import main

    parsed = options.parse_args_and_arch(options.get_training_parser(), words)
    main(convert_namespace_to_omegaconf(parsed))
    return 0


class _Changes:
    """An audit hook that counts the changes below a folder, and acts before the n-th."""

    def __init__(self, folder: str, number: int, act):
        self.folder, self.number, self.act, self.count = folder, number, act, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        if os.path.isabs(name) and not name.startswith(self.folder):
            return
        self.count += 1
        if self.count == self.number:
            self.act()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit_files(size: int, heed: int) -> None:
    signal.signal(signal.SIGXFSZ, heed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _without_locks() -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = fcntl.lockf = refuse


def _child(request: dict, streams: dict[str, tuple[int, int]], pipe: int) -> int:
    os.chdir(request["folder"])
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(streams[stream][1], number)
    sys.stdin = open(request["stdin"]) if "stdin" in request else open(os.devnull)
    if not request.get("locks", True):
        _without_locks()
    act = _kill
    if "gone" in request:

        def act() -> None:
            shutil.rmtree(request["gone"])

    changes = _Changes(request["folder"], request.get("change", request.get("vanish", 0)), act)
    sys.addaudithook(changes)
    if "size" in request or "full" in request:
        heed = signal.SIG_DFL if "size" in request else signal.SIG_IGN
        _limit_files(request.get("size", request.get("full")), heed)
    status = 1
    try:
        words = request["words"]
        if words[0] == "fairseq-train":
            status = _train(words[1:])
        else:
            from fairseq_resynth.cli.main import main

            status = main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    # The count, before the streams are flushed into files that may be limited
    os.write(pipe, str(changes.count).encode())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status or 0


def _read_all(descriptor: int) -> str:
    """What is in a pipe: to its end, or so far if it does not block."""
    content = b""
    with contextlib.suppress(BlockingIOError):
        while block := os.read(descriptor, 1 << 16):
            content += block
    return content.decode(errors="replace")


def _answer(request: dict) -> dict:
    # Pipes that hold all that is printed, since no limit on the size of files applies to them
    streams = {name: os.pipe() for name in ("out", "err")}
    for _, end in streams.values():
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 20)
    read, write = os.pipe()
    started = time.monotonic()
    process = os.fork()
    if not process:
        status = 1
        try:
            os.close(read)
            status = _child(request, streams, write)
        finally:
            os._exit(status)
    os.close(write)
    if "seconds" in request:
        descriptor = os.pidfd_open(process)
        if not select.select([descriptor], [], [], request["seconds"])[0]:
            os.kill(process, signal.SIGKILL)
        os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seconds = time.monotonic() - started
    with open(read) as pipe:
        count = int(pipe.read() or 0)
    text = {}
    for name, (start, end) in streams.items():
        os.close(end)
        os.set_blocking(
            start, status >= 0
        )  # worker processes of what was killed may hold the other end
        text[name] = _read_all(start)
        os.close(start)
    return {"status": status, **text, "changes": count, "seconds": seconds}


def _serve() -> None:
    import importlib
    import pkgutil

    import soundfile  # noqa: F401
    import torch

    import fairseq_resynth

    torch.set_num_threads(1)
    # All that verbs import while they run, so that each fork finds it
    libraries = (
        "PIL.Image matplotlib.figure torchaudio pyworld amfm_decompy.pYAAPT pesq pystoi soxr"
    )
    for library in libraries.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    if "PIL.Image" in sys.modules:
        sys.modules["PIL.Image"].preinit()
    for module in pkgutil.walk_packages(fairseq_resynth.__path__, "fairseq_resynth."):
        if "training" in sys.argv or not re.search(FAIRSEQ, module.name):
            importlib.import_module(module.name)
    if "training" in sys.argv:
        import fairseq_cli.train  # noqa: F401
        import torch._dynamo  # noqa: F401  # and sympy: the first optimizer would, for seconds
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the threads of an import"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
