"""Files: written completely or not at all, read as text, JSON and arrays that may be damaged, and hashed."""

import codecs
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fairseq_resynth.data.storage.messages import one_line, shown

_TEMPORARY = re.compile(
    r"\..*\.(?P<place>[0-9a-f]{12})\.(?P<process>\d+)\.[0-9a-f]{12}\.tmp(\..*)?"
)
# Seconds after which a temporary file of another machine belongs to no process.
_ABANDONED = 86400.0
# Bytes that file systems allow in a name; and in a path, of which the output folder takes a part.
_LONGEST_NAME, _LONGEST_PATH = 255, 3000
_cleaned: set[str] = set()  # folders


@functools.cache
def _place() -> str:
    """The machine since its start and the name space of its process ids, where an id names one process."""
    marks = [socket.gethostname()]
    with contextlib.suppress(OSError):  # there is no /proc
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        marks.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]


def unique_name() -> str:
    """A name that no other process has, also where containers share a file system and process ids."""
    return f"{_place()}.{os.getpid()}.{secrets.token_hex(6)}"


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere, a signal of 0 ends the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        pass
    return True


def other_owner(path: Path) -> int | None:
    """Makes this process the owner of what `path`, a file, stands for; the id of a running process of this
    machine that is the owner already, otherwise None."""
    with contextlib.suppress(OSError, ValueError):
        place, process, started = path.read_text(encoding="utf-8").split(" ")
        other = int(process)
        if place == _place() and other != os.getpid() and _is_running(other):
            if _started(other) == started:
                return other
    write_text(path, f"{_place()} {os.getpid()} {_started(os.getpid())}")
    return None


def _started(process: int) -> str:
    """When a process has started, in ticks since the machine has, so that an id that is used again is not
    taken for the same process; 0 where the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files and folders that killed processes have left in a folder, once per process:
    those of this machine whose process has ended, and those of others that have not changed for a day."""
    if str(folder) in _cleaned or not folder.is_dir():
        return
    _cleaned.add(str(folder))
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") or not (name := _TEMPORARY.fullmatch(entry.name)):
            continue
        with contextlib.suppress(OSError):
            ended = name["place"] == _place() and not _is_running(int(name["process"]))
            if ended or time.time() - entry.stat().st_mtime > _ABANDONED:
                is_folder = entry.is_dir(follow_symlinks=False)
                (shutil.rmtree if is_folder else os.unlink)(entry.path)


def require_exists(path: str | Path, rest: str = "") -> None:
    """Raises FileNotFoundError, which ends with `rest`, if there is no such file."""
    if not os.path.isfile(path):  # pathlib's raises OSError for a name that is too long
        raise FileNotFoundError(f"{shown(path, 1000)} does not exist{rest}")


def check_file_name(name: str | Path, suffix: str = "") -> None:
    """Raises ValueError if a name that an input gives cannot be that of a file in an output folder: with its
    `suffix` it points outside the folder, or a file system cannot hold it."""
    path = Path(f"{name}{suffix}")
    quoted = repr(str(name)[:60]) + ("…" if len(str(name)) > 60 else "")
    if ".." in path.parts or path.is_absolute():
        raise ValueError(f"the name {quoted} points outside the output folder")
    try:
        parts = [os.fsencode(part) for part in path.parts]
    except UnicodeEncodeError:
        parts = [b"\0"]
    if any(b"\0" in part for part in parts):
        raise ValueError(f"the name {quoted} has characters that no file name can have")
    longest = max(map(len, parts), default=0)
    if longest > _LONGEST_NAME or sum(map(len, parts)) + len(parts) > _LONGEST_PATH:
        raise ValueError(
            f"the name {quoted} is too long for a file: it has {sum(map(len, parts))} bytes with its suffix, "
            f"{longest} in one part, expected at most {_LONGEST_PATH}, and {_LONGEST_NAME} in each part"
        )


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it over `path` when the block succeeds. The temporary
    name keeps the suffix, since writers such as soundfile choose a format by it. A device or a pipe is
    written to as it is. Raises OSError with `path` and the reason if nothing can be written, whatever error
    the block's writer has made of that."""
    path = Path(path)
    # Links of a system to what is open, such as /dev/stdout, must not be replaced by a file.
    open_file = re.match(r"/(dev|dev/fd|proc/.*)$", os.path.realpath(path.parent)) is not None
    if path.exists() and (open_file or not path.is_file()) and not path.is_dir():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    stem = os.fsencode(path.stem)[:100].decode("utf-8", "ignore")  # a name has at most 255 bytes
    temporary = path.with_name(f".{stem}.{unique_name()}.tmp{path.suffix[-20:]}")
    try:
        yield temporary
        os.replace(temporary, path)
    except (ValueError, BrokenPipeError):  # of what was to be written
        raise
    except Exception as error:
        if (cause := _write_error(error, temporary)) is not None:
            raise unwritable(path, cause) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_error(error: Exception, temporary: Path) -> OSError | None:
    """What keeps a file from being written, if this is the cause of an error: libraries hide it."""
    if isinstance(error, OSError) and error.filename in (temporary, *_spellings(temporary)):
        return error
    try:
        with temporary.open("ab") as stream:
            stream.write(bytes(1 << 16))
    except OSError as cause:
        return cause
    return error if isinstance(error, OSError) and error.strerror and not error.filename else None


def _spellings(path: Path) -> tuple[str, bytes]:
    return str(path), os.fsencode(path)


def unwritable(path: str | Path, cause: OSError) -> OSError:
    """The error that says why `path` could not be written."""
    error = OSError(f"{path} could not be written: {cause.strerror or cause}")
    error.errno = cause.errno
    return error


def require_written(*paths: Path) -> None:
    """Raises FileNotFoundError if a file that this process has written does not exist any more."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} was removed while its folder was written: run the command again"
            )


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def decode_text(block: bytes, path: str | Path) -> str:
    """The text of a file of UTF-8, or of UTF-16 with a byte-order mark, which is left out. Raises ValueError
    with the name of the file if it is neither."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return block.decode("utf-16" if block.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it to UTF-8."
        ) from error


def open_utf8(path: Path) -> BinaryIO:
    """Opens a text file as UTF-8 bytes without a byte-order mark; UTF-16 is held in memory."""
    stream = path.open("rb")
    start = stream.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with stream:
            return io.BytesIO(decode_text(start + stream.read(), path).encode("utf-8"))
    stream.seek(3 if start == codecs.BOM_UTF8 else 0)
    return stream


def text_lines(path: str | Path) -> list[str]:
    r"""The lines of a text file, which may end with `\n`, `\r\n` or `\r`; raises as `decode_text` does."""
    text = decode_text(Path(path).read_bytes(), path).replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n") if text else []


# Folders of unpacked archives of macOS, and of Synology file servers, beside hidden ones such as Jupyter's.
COPIES = ("__MACOSX", "@eaDir")


def walk_files(root: str | Path) -> Iterator[Path]:
    """Yields the files under a folder, sorted in each folder. Links to folders are followed, except to a
    folder that they are in; a link to nothing counts as a file, so that it is reported. Hidden files and
    folders are left out, and so are the copies of files that other programs keep in `COPIES`."""
    folders = [(os.fspath(root), frozenset[str]())]
    while folders:
        folder, above = folders.pop()
        if (real := os.path.realpath(folder)) in above:
            continue
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name in COPIES:
                    continue
                if entry.is_dir():
                    folders.append((entry.path, above | {real}))
                elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                    yield Path(entry.path)


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, hint: str = "") -> Any:
    """Reads JSON. `hint`, how to make the file, ends the message if it is missing or is not JSON."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {hint}".strip())
    try:
        return json.loads(decode_text(path.read_bytes(), path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}. {hint}".strip()) from error


def read_object(path: str | Path, hint: str = "", **shapes: Any) -> dict[str, Any]:
    """Reads a JSON object, as `read_json` does. Raises ValueError as well if it lacks a key of `shapes`, or
    what is under it has another shape, see `misfit`."""
    values = read_json(path, hint)
    if wrong := misfit(values, shapes):
        raise ValueError(f"{path} is damaged: found {wrong}. {hint}".strip())
    return values


_LARGEST_INTEGER = 10**300  # what a float can hold; an object of JSON may have 4,300 digits


def misfit(value: Any, shape: Any, place: str = "") -> str:
    """What in a value of JSON does not have a shape, as text; empty if all has. A shape is a type or a union
    of types; `[shape]`, a list; `{str: shape}`, an object with any keys; an object with these keys or more;
    or a tuple of shapes, any of which will do and which may be missing from an object."""
    found = f"{ascii(value)[:40]}{f' as {place}' if place else ''}"
    if isinstance(shape, tuple):
        return min((misfit(value, inner, place) for inner in shape), key=len)
    if not isinstance(shape, list | dict):
        right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
        too_large = isinstance(value, int) and abs(value) > _LARGEST_INTEGER
        return "" if right and not too_large else found
    if not isinstance(value, type(shape)):
        return f"{found}, expected {'a list' if isinstance(shape, list) else 'an object'}"
    if isinstance(shape, dict) and str not in shape:
        known = [key for key in shape if key in value or not isinstance(shape[key], tuple)]
        if missing := [key for key in known if key not in value]:
            return f"no {missing[0]}{f' in {place}' if place else ''}"
        parts = [(key, value[key], shape[key]) for key in known]
    else:
        inner = shape[str] if isinstance(shape, dict) else shape[0]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [(key, item, inner) for key, item in items]
    prefix = f"{place}/" if place else ""
    wrong = (misfit(item, inner, f"{prefix}{ascii(key)[:40]}") for key, item, inner in parts)
    return next(filter(None, wrong), "")


@contextlib.contextmanager
def reading(path: str | Path, what: str, hint: str = "") -> Iterator[None]:
    """Turns whatever a damaged file makes its reader raise into a ValueError of one line that names the file
    and says what it should be; a ValueError that names it, or a file beside it, stays as it is."""
    try:
        yield
    except Exception as error:  # KeyError, TypeError, MemoryError, and those of other libraries
        own = type(error) in (ValueError, FileNotFoundError) and len(str(error).splitlines()) == 1
        if own and any(name in str(error) for name in (str(path), f"{Path(path).parent}/")):
            raise
        raise ValueError(
            f"{path} is not readable as {what}: {one_line(error)}. {hint}".strip()
        ) from error


def unpacked_size(path: str | Path) -> int:
    """The bytes that the members of a ZIP archive claim to have; 0 for any other file."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def map_array(path: str | Path, hint: str = "") -> np.ndarray:
    """Maps a .npy file of numbers into memory, read-only, so that a damaged one cannot claim memory. Raises
    ValueError if it is not one, or shorter than its header says."""
    with reading(path, "an array of numbers (.npy)", hint):
        return np.lib.format.open_memmap(path, mode="r")


def array_header(shape: tuple[int, ...], kind: str) -> bytes:
    """The first bytes of a `.npy` file, for arrays that are written in pieces; `kind` as in "<f4"."""
    header, layout = io.BytesIO(), {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    return header.getvalue()


def file_hash(path: str | Path, start: int = 0, length: int | None = None) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file, or of `length` bytes from `start`."""
    digest, path = hashlib.sha256(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as stream:
        stream.seek(start)
        left = path.stat().st_size if length is None else length
        while block := stream.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()[:16]
