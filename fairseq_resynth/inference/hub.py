"""Bundles from the Hugging Face hub or an address, into a local folder."""

import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from fairseq_resynth.data.storage.files import atomic_path

FILES = (
    "generator.safetensors",
    "f0_vqvae.safetensors",
    "content_vqvae.safetensors",
    "kmeans.safetensors",
    "speakers.json",
    "entropy.safetensors",
    "README.md",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# What `resynth export --to hub-folder` writes and the loaders read.
PATTERNS = ["*.json", "*.safetensors", "*.md"]


def cache_folder() -> Path:
    """Returns where downloads are kept: $RESYNTH_CACHE, else ~/.cache/fairseq_resynth."""
    return Path(os.environ.get("RESYNTH_CACHE") or Path.home() / ".cache" / "fairseq_resynth")


def find_bundle(name: str | Path) -> Path:
    """Returns the folder of a bundle, fetched if it is not on this machine.

    Args:
        name: a folder; `owner/name` or `owner/name@revision` on the Hugging Face hub; http(s)://… of a
            folder, a .tar.gz or a .zip.

    Raises:
        FileNotFoundError: none of these.
        ValueError: it could not be fetched, or an archive that writes outside its folder.
    """
    path, text = Path(name), str(name)
    if path.is_dir():
        return path
    if re.match(r"https?://", text):
        return _fetch_url(text)
    if _HUB_ID.fullmatch(text) and not path.exists():
        return _fetch_hub(text)
    raise FileNotFoundError(
        f"{name} is no folder of a bundle, no owner/name on the Hugging Face hub and no http(s) address."
    )


def _fetch_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ValueError(
            f"{name} is no folder here; to fetch it from the hub: pip install 'fairseq_resynth[hub]'"
        ) from error
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=PATTERNS)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is no folder here, and the hub does not give it: {reason}"
        ) from error


def _fetch_url(url: str) -> Path:
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    if (folder / "config.json").is_file():
        return folder
    if url.endswith((".tar.gz", ".tgz", ".tar", ".zip")):
        return _fetch_archive(url, folder)
    base = url.rstrip("/")
    for name in FILES:  # config.json last: an interrupted download is not taken for whole
        _download(f"{base}/{name}", folder / name, optional=True)
    _download(f"{base}/config.json", folder / "config.json")
    return folder


def _download(url: str, path: Path, optional: bool = False) -> None:
    if path.is_file():
        return
    try:
        with urlopen(url, timeout=60) as response, atomic_path(path) as temporary:
            with temporary.open("wb") as stream:
                shutil.copyfileobj(response, stream)
    except HTTPError as error:
        if optional and error.code in (403, 404):
            return
        raise ValueError(f"{url} could not be fetched: {error}") from error
    except (URLError, OSError) as error:
        raise ValueError(f"{url} could not be fetched: {error}") from error


def _fetch_archive(url: str, folder: Path) -> Path:
    archive = folder.with_name(folder.name + "_" + url.rpartition("/")[2])
    _download(url, archive)
    unpacked = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        if url.endswith(".zip"):
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(unpacked)  # drops absolute and parent paths itself
        else:
            with tarfile.open(archive) as bundle:
                bundle.extractall(unpacked, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        archive.unlink(missing_ok=True)
        raise ValueError(f"{url} is no archive that can be unpacked: {error}") from error
    configs = sorted(unpacked.rglob("config.json"), key=lambda found: len(found.parts))
    if not configs:
        raise ValueError(f"{url} holds no bundle: there is no config.json in it.")
    shutil.rmtree(folder, ignore_errors=True)
    configs[0].parent.rename(folder)
    shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink(missing_ok=True)
    return folder
