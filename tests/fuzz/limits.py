"""What a reader of damaged input may do: use little memory and time, write nowhere, run nothing, and raise
the project's errors of one line."""

import contextlib
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq_resynth.codec.format.range_coder import CodecError

SECONDS = 10  # of processor time, for one input
MEMORY = 1 << 30  # bytes that one input may claim
OWN = (ValueError, FileNotFoundError, CodecError, IsADirectoryError)
RUNS = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
)
_MOVES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "shutil.rmtree",
)
_folder: str | None = None  # where files may be written; None: no input is being read
_seen: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which cannot be removed: it notes what must not happen while an input is read."""
    if _folder is None:
        return
    if event in RUNS:
        _seen.append(f"{event} {arguments[:2]}")
    elif event in _MOVES or event == "open" and _writes(arguments):
        target = arguments[1 if event in ("os.rename", "os.symlink", "os.link") else 0]
        in_folder = event in ("os.remove", "os.mkdir") and arguments[-1] != -1  # shutil.rmtree's
        path = os.fsdecode(target) if isinstance(target, str | bytes) and not in_folder else ""
        real = os.path.realpath(path)
        if path and not _may_change(real):
            _seen.append(f"{event} {path}")


def _may_change(real: str) -> bool:
    """Whether a path is in the folder, or a device; /dev/shm is a folder as others are."""
    is_device = real.startswith("/dev/") and not real.startswith("/dev/shm/")
    return Path(real).is_relative_to(_folder) or is_device or "__pycache__" in real


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


_is_watching = False


@contextlib.contextmanager
def limited(folder: Path) -> Iterator[None]:
    """Limits the memory of the process to what it has and `MEMORY` more, and watches what is run, and written
    outside of `folder`."""
    global _folder, _is_watching
    if not _is_watching:
        sys.addaudithook(_watch)
        _is_watching = True
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmData"))  # fmt: skip
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + MEMORY, limits[1]))
    _folder = os.path.realpath(folder)
    try:
        yield
    finally:
        _folder = None
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def failure(read: Any, path: Path) -> str:
    """What is wrong with how a reader treats an input; empty if it reads it or refuses it as it should."""
    _seen.clear()
    start, wrong = time.process_time(), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except OWN as error:
        if type(error) not in OWN:
            wrong = f"raised {error!r}"
        elif len(str(error).splitlines()) != 1:
            wrong = f"its message has {len(str(error).splitlines())} lines: {error!r}"
    except BaseException as error:
        wrong = f"raised {type(error).__name__}: {error}"
        if isinstance(error, KeyboardInterrupt):
            raise
    if _seen:
        wrong += f"; did {_seen}"
    if (seconds := time.process_time() - start) > SECONDS:
        wrong += f"; took {seconds:.1f} s"
    return wrong
