"""Finds bundles: a folder, an archive, an address or a repository of the Hugging Face hub."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fairseq_resynth.data.storage.files import (
    atomic_path,
    file_hash,
    remove_abandoned,
    unique_name,
)
from fairseq_resynth.data.storage.messages import one_line

# The identity of a bundle hashes them in this order.
WEIGHTS = tuple(
    f"{name}.safetensors" for name in ("generator", "f0_vqvae", "kmeans", "content_vqvae")
)
ENTROPY_FILE = "entropy.safetensors"
FILES = (*WEIGHTS, "speakers.json", ENTROPY_FILE, "README.md")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# What `resynth export --to hub-folder` writes and the loaders read.
PATTERNS = ["*.json", "*.safetensors", "*.md"]
_MOST_FILES, _LARGEST_RATIO, _SMALL = 1000, 20, 1 << 24  # of an archive; the last in bytes
LARGEST_DOWNLOAD = 1 << 33  # bytes
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def cache_folder() -> Path:
    """The folder of downloaded bundles: $RESYNTH_CACHE, else ~/.cache/fairseq_resynth."""
    return Path(os.environ.get("RESYNTH_CACHE") or Path.home() / ".cache" / "fairseq_resynth")


def is_checkpoint(name: str | Path) -> bool:
    """Whether a name means a checkpoint of fairseq rather than a bundle."""
    return Path(name).suffix == ".pt" or Path(name).is_file() and not str(name).endswith(ARCHIVES)


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle, downloaded or unpacked if it is not on this machine.

    `name` is a folder; a .tar.gz or .zip of one; `owner/name` or `owner/name@revision` on the Hugging Face
    hub; or the http(s) address of a folder or an archive. Raises FileNotFoundError for anything else, and
    ValueError if the download fails or an archive writes outside its folder.
    """
    path, text = Path(name), str(name)
    if path.is_dir():
        return path
    if path.is_file() and text.endswith(ARCHIVES):
        folder = cache_folder() / file_hash(path)
        return folder if _is_complete(folder) else _unpack(path, folder, text)
    if re.match(r"https?://", text):
        return _fetch_url(text)
    if _HUB_ID.fullmatch(text) and not path.exists() and not is_checkpoint(text):
        return _fetch_hub(text)
    raise FileNotFoundError(
        f"{name} is not a bundle: expected a folder, an archive of one, owner/name on the Hugging Face hub "
        "or an http(s) address."
    )


def _fetch_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"the folder {name} does not exist; to download it from the hub: "
            "pip install 'fairseq_resynth[hub]'"
        ) from error
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=PATTERNS)
        )
    except (OSError, ValueError) as error:  # as all of the hub's own
        raise ValueError(
            f"the folder {name} does not exist, and the hub cannot provide it: {one_line(error)}"
        ) from error


def _fetch_url(url: str) -> Path:
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    if _is_complete(folder):
        return folder
    if url.endswith(ARCHIVES):
        suffix = next(suffix for suffix in ARCHIVES if url.endswith(suffix))
        archive = folder.with_name(f"{folder.name}{suffix}")
        _download(url, archive)
        try:
            return _unpack(archive, folder, url)
        finally:
            archive.unlink(missing_ok=True)
    base = url.rstrip("/")
    for name in FILES:  # config.json is last, so that an interrupted download counts as none
        _download(f"{base}/{name}", folder / name, optional=True)
    _download(f"{base}/config.json", folder / "config.json")
    return folder


def _download(url: str, path: Path, optional: bool = False) -> None:
    # Imported here because a bundle in a folder, the usual case, starts faster without them.
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    if path.is_file():
        return
    try:
        response = urlopen(url, timeout=60)
    # OSError: as all of urllib's own; OverflowError: a redirection that claims 10**30 bytes.
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        if optional and isinstance(error, HTTPError) and error.code in (403, 404):
            return
        raise ValueError(f"{url} could not be downloaded: {one_line(error)}") from error
    with response, atomic_path(path) as temporary:
        with temporary.open("wb") as stream:
            for block in _received(response, url):
                stream.write(block)
        _check_download(temporary, url)


def _received(response: Any, url: str) -> Iterator[bytes]:
    """Yields the bytes of a response. Raises ValueError if the connection breaks, or it has fewer bytes than
    its header says, which `http.client` does not notice, or more than a bundle has."""
    from http.client import HTTPException

    expected, count = response.length, 0  # the length is None if the server did not say it
    while True:
        try:
            block = response.read(1 << 20)
        except (OSError, HTTPException) as error:
            raise ValueError(
                f"{url} could not be downloaded: {one_line(error)} after {count} bytes. Try again."
            ) from error
        count += len(block)
        if max(count, expected or 0) > LARGEST_DOWNLOAD:
            raise ValueError(
                f"{url} is larger than {LARGEST_DOWNLOAD >> 20} MiB, which no bundle is: download it "
                "yourself if you trust it, and give the file or folder"
            )
        if not block:
            break
        yield block
    if expected is not None and count < expected:
        raise ValueError(
            f"{url} could not be downloaded: the connection ended after {count} of "
            f"{expected} bytes. Try again."
        )


def _check_download(path: Path, url: str) -> None:
    """Raises ValueError if what was downloaded is another kind of file than its name says, as the pages are
    by which some servers answer instead of an error; it would stay in the cache."""
    with path.open("rb") as stream:
        start = stream.read(1 << 10)
    if url.endswith(".json"):
        fits = start.lstrip().startswith(b"{")
    elif url.endswith(".safetensors"):
        fits = start[8:9] == b"{"
    else:
        fits = url.endswith(".md") or not start.lstrip().startswith(b"<")
    if not fits:
        raise ValueError(
            f"{url} is not the file that its name says: it begins with {ascii(start[:40])}. Open the address "
            "in a browser: it may be a page, or ask for a login."
        )


def _is_complete(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _bounded(members: Iterable[Any], size: str, archive: Path, name: str) -> Iterator[Any]:
    """Yields the members of an archive, whose attribute `size` is in bytes. Raises ValueError if it unpacks
    to more than a bundle has: weights hardly compress, but a few bytes can claim any size."""
    total, limit = 0, _LARGEST_RATIO * archive.stat().st_size + _SMALL
    for count, member in enumerate(members, 1):
        total += getattr(member, size)
        if total > limit or count > _MOST_FILES:
            raise ValueError(
                f"{name} unpacks to more than {limit >> 20} MiB or {_MOST_FILES} files, which is no bundle. "
                "Unpack it yourself if you trust it, and give the folder."
            )
        yield member


def _unpack(archive: Path, folder: Path, name: str) -> Path:
    """Unpacks the bundle in an archive, at any depth, to `folder`, unless another process has done so
    meanwhile, which may be reading it."""
    import tarfile
    import zipfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    unpacked = folder.with_name(f".{folder.name}.{unique_name()}.tmp")
    try:
        unpacked.mkdir()
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as bundle:
                members = _bounded(bundle.infolist(), "file_size", archive, name)
                bundle.extractall(unpacked, members)  # drops absolute and parent paths itself
        else:
            with tarfile.open(archive) as bundle:
                members = _bounded(bundle, "size", archive, name)
                bundle.extractall(unpacked, members, filter="data")
        configs = sorted(unpacked.rglob("config.json"), key=lambda found: len(found.parts))
        if not configs:
            raise ValueError(f"{name} contains no bundle: it has no config.json.")
        if not _is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                configs[0].parent.rename(folder)
            except OSError:
                if not _is_complete(folder):
                    raise
    except Exception as error:  # a damaged archive can make its reader fail in any way
        if type(error) is ValueError:
            raise
        raise ValueError(f"{name} cannot be unpacked: {one_line(error)}") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return folder
