"""What servers answer to a download: an archive, a body in chunks, a redirect."""

import io
import shutil
import zipfile
from functools import partial
from pathlib import Path

import limits
import pytest
from kinds import Kind
from mutations import change_bytes, change_lines
from raw_server import answering, http_answer

from fairseq_resynth.inference.hub import find_bundle


def _zip_of_a_bundle() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", "{}")
    return stream.getvalue()


def _download(asked: str, path: Path) -> None:
    answers = {"/c/config.json": http_answer(b"{}"), asked: path.read_bytes()}
    cache = path.parent / "cache"
    with pytest.MonkeyPatch.context() as patch, answering(answers) as url:
        patch.setenv("RESYNTH_CACHE", str(cache))
        patch.setattr(limits, "RUNS", tuple(set(limits.RUNS) - {"socket.connect"}))
        try:
            find_bundle(f"{url}{asked.removesuffix('/config.json')}")
        except (ValueError, FileNotFoundError):
            assert not [each for each in cache.rglob("*") if each.is_file()]
            raise
        finally:
            shutil.rmtree(cache, ignore_errors=True)


def _answer(asked: str, data: bytes) -> Kind:
    def write(folder: Path) -> None:
        (folder / "answer").write_bytes(data)

    return Kind(write, "answer", [partial(_download, asked)], [change_bytes, change_lines], 30)


ANSWERS = {
    "answer with an archive": _answer("/a.zip", http_answer(_zip_of_a_bundle())),
    "answer in chunks": _answer(
        "/b/config.json",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ),
    "answer elsewhere": _answer(
        "/b/config.json",
        b"HTTP/1.1 302 Found\r\nLocation: /c/config.json\r\nContent-Length: 0\r\n\r\n",
    ),
}
