"""The hub folder, and bundles from a folder, an address or an archive."""

import functools
import http.server
import io
import itertools
import os
import pydoc
import shutil
import subprocess
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from raw_server import answering, http_answer
from tiny_bundles import UNITS, write_bundle
from tiny_voices import ENGLISH

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage import files
from fairseq_resynth.inference import hub as hub_module
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.modules.quantizers import F0Vqvae, F0VqvaeSizes
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder that is served, its address); downloads go to a cache of their own."""
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_folder_for_the_hub(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    system = write_bundle("units, speaker", tmp_path / "bundle")
    out = tmp_path / "out"
    (tmp_path / "bundle" / "entropy.safetensors").write_bytes(b"the codec's context model")
    options = ["--to", "hub-folder", "--license", "cc-by-4.0", "--outdir", str(out)]
    assert main(["export", str(tmp_path / "bundle"), *options]) == 0
    card = hub.ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "fairseq_resynth"
    assert card.data.pipeline_tag == "audio-to-audio"
    assert "ann, bob, cid" in card.text
    assert {path.suffix for path in out.iterdir()} == {".json", ".safetensors", ".md"}
    assert (out / "entropy.safetensors").read_bytes() == b"the codec's context model"
    again = Resynthesizer.from_pretrained(out)
    assert np.array_equal(again.decode(UNITS, speaker="cid"), system.decode(UNITS, speaker="cid"))


def test_from_an_address(server, tmp_path):
    served, url = server
    system = write_bundle("units", served / "bundle")
    again = Resynthesizer.from_pretrained(f"{url}/bundle/")
    assert np.array_equal(again.decode(UNITS), system.decode(UNITS))
    (served / "bundle" / "config.json").unlink()  # the second time nothing is fetched
    Resynthesizer.from_pretrained(f"{url}/bundle/")


def test_from_an_archive(server):
    served, url = server
    system = write_bundle("units", served / "bundle")
    with tarfile.open(served / "one.tar.gz", "w:gz") as archive:
        archive.add(served / "bundle", "some/folder")
    again = Resynthesizer.from_pretrained(f"{url}/one.tar.gz")
    assert np.array_equal(again.decode(UNITS), system.decode(UNITS))


def test_from_an_archive_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    system = write_bundle("units", tmp_path / "bundle")
    archive = shutil.make_archive(tmp_path / "one", "zip", tmp_path / "bundle")
    for _ in range(2):
        again = Resynthesizer.from_pretrained(archive)
        assert np.array_equal(again.decode(UNITS), system.decode(UNITS))


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """An archive of a bundle, and a cache in the folder `cache` beside it."""
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    write_bundle("units", tmp_path / "bundle")
    return shutil.make_archive(tmp_path / "one", "zip", tmp_path / "bundle")


def test_what_a_kill_leaves_of_an_archive_is_removed(packed, tmp_path, monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    with monkeypatch.context() as patch:  # as in the process that has ended
        patch.setattr("os.getpid", lambda: ended.pid)
        patch.setattr("shutil.rmtree", lambda *arguments, **options: None)
        patch.setattr("zipfile.ZipFile.extractall", lambda *arguments: 1 / 0)
        with pytest.raises(ValueError, match="cannot be unpacked"):
            find_bundle(packed)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    files._cleaned.clear()
    folder = find_bundle(packed)
    assert list((tmp_path / "cache").iterdir()) == [folder]
    (tmp_path / "new").mkdir()  # which others may read, too
    assert folder.stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize("moment", ["_bounded", "shutil.rmtree"])
def test_two_tasks_that_unpack_at_once(moment, packed, monkeypatch):
    """What the first has unpacked and may be reading stays."""
    where = moment if "." in moment else f"{hub_module.__name__}.{moment}"
    whole, read = pydoc.locate(where), []

    def after_another(*arguments, **options):
        monkeypatch.undo()
        monkeypatch.setenv("RESYNTH_CACHE", cache)
        result = whole(*arguments, **options)
        folder = find_bundle(packed)
        read.append((folder / "config.json").stat().st_ino)
        return result

    cache = os.environ["RESYNTH_CACHE"]
    monkeypatch.setattr(where, after_another)
    assert [(find_bundle(packed) / "config.json").stat().st_ino] == read


def test_archive_that_writes_elsewhere(server, tmp_path):
    served, url = server
    with tarfile.open(served / "bad.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("../../outside.txt")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"bad"))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        find_bundle(f"{url}/bad.tar.gz")
    assert not list(tmp_path.rglob("outside.txt"))


def test_hub_id(tmp_path, monkeypatch):
    """The hub's client is asked for the repository and revision; the network is not."""
    hub = pytest.importorskip("huggingface_hub")
    system = write_bundle("units", tmp_path / "bundle")
    asked = []

    def snapshot_download(repository, revision=None, allow_patterns=None):
        asked.append((repository, revision))
        return str(tmp_path / "bundle")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    again = Resynthesizer.from_pretrained("someone/vocoder@v1.0")
    assert np.array_equal(again.decode(UNITS), system.decode(UNITS))
    assert asked == [("someone/vocoder", "v1.0")]


def test_synthesize_takes_a_hub_id(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    write_bundle("units", tmp_path / "bundle")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path / "bundle"))
    (tmp_path / "units.txt").write_text("a|1 2 3\n")
    options = ["--input", str(tmp_path / "units.txt"), "--outdir", str(tmp_path / "out")]
    assert main(["synthesize", "--bundle", "someone/vocoder", *options]) == 0
    assert (tmp_path / "out" / "a.wav").is_file()


@pytest.mark.parametrize("command", ["synthesize", "resynthesize"])
def test_the_bundle_of_an_f0_quantizer_cannot_speak(tmp_path, capsys, command):
    sizes = F0VqvaeSizes(num_codes=4, code_dim=8, width=4)
    bundle = Bundle(None, None, None, F0Vqvae(sizes), sizes)
    save_bundle(tmp_path / "bundle", bundle)
    (tmp_path / "units.txt").write_text("a|1 2 3\n")
    source = ["--input", str(tmp_path / "units.txt")]
    source = source if command == "synthesize" else [str(ENGLISH)]
    folders = ["--bundle", str(tmp_path / "bundle"), "--outdir", str(tmp_path / "out")]
    assert main([command, *source, *folders]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "contains only an F0 quantizer" in line


def test_a_missing_checkpoint_is_not_looked_for_on_the_hub(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="checkpoints/best.pt is not a bundle"):
        find_bundle("checkpoints/best.pt")
    (tmp_path / "units.txt").write_text("a|1 2 3\n")
    options = ["--input", "units.txt", "--outdir", "out"]
    assert main(["synthesize", "--checkpoint", "checkpoints/best.pt", *options]) == 2
    assert "checkpoints/best.pt does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name,message",
    [
        ("not there at all", "is not a bundle: expected a folder"),
        ("{url}/nothing", "config.json could not be downloaded: HTTP Error 404"),
        ("http://127.0.0.1:9/x", "could not be downloaded"),
    ],
)
def test_nothing_there(server, name, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_bundle(name.format(url=server[1]))


def test_damaged_archives_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.LNKTYPE, "nothing"
        archive.addfile(link)
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    for name, content in (
        ("empty", b""),
        ("cut", whole[:40]),
        ("link", whole),
        ("text", b"x" * 99),
    ):
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.tar.gz cannot be unpacked") as raised:
            find_bundle(path)
        assert len(str(raised.value).splitlines()) == 1
    assert not list((tmp_path / "cache").iterdir())


def test_archives_that_unpack_to_more_than_a_bundle_has(tmp_path, monkeypatch):
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (20 << 20))
    with tarfile.open(tmp_path / "claims.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("config.json")
        member.size = 1 << 40
        archive.fileobj.write(member.tobuf())
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as archive:
        for number in range(1001):
            archive.addfile(tarfile.TarInfo(str(number)))
    for name in ("bomb.zip", "claims.tar.gz", "many.tar.gz"):
        with pytest.raises(ValueError, match=f"{name} unpacks to more than .*, which is no bundle"):
            find_bundle(tmp_path / name)
    assert not list((tmp_path / "cache").iterdir())


PAGE = b"<!DOCTYPE html><title>Log in</title>"
WHOLE = http_answer(b'{"a": 1}')
DOWNLOADS = {
    "too little": (http_answer(b"PK", length=9), "the connection ended after 2 of 9 bytes"),
    "a broken chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nPK",
        "IncompleteRead",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "could not be downloaded"),
    "nothing": (b"", "could not be downloaded"),
    "a redirect to itself": (
        b"HTTP/1.1 302 Found\r\nLocation: /a.zip\r\nContent-Length: 0\r\n\r\n",
        "could not be downloaded",
    ),
    "a redirect to a file": (
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        "could not be downloaded",
    ),
    "a redirect of 10**30 bytes": (
        b"HTTP/1.1 302 Found\r\nLocation: /c/x\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\n",
        "could not be downloaded",
    ),
    "a page": (http_answer(PAGE), "is not the file that its name says: it begins with b'<!DOCTYPE"),
    "a claim": (http_answer(b"PK", length=1 << 50), "is larger than 8192 MiB, which no bundle is"),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_downloads_that_go_wrong_are_named_and_leave_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    answer, message = DOWNLOADS[name]
    for path in ("/a.zip", "/b/config.json"):
        with answering({path: answer}) as url:
            with pytest.raises(ValueError, match=message) as raised:
                find_bundle(f"{url}{path.removesuffix('/config.json')}")
        assert len(str(raised.value).splitlines()) == 1
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, left


def test_weights_cut_short_by_the_connection_are_not_kept(tmp_path, monkeypatch):
    """http.client does not notice it, and the next run would take them from the cache."""
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    weights = len(header := b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}').to_bytes(
        8, "little"
    )
    weights += header + bytes(9)
    answers = {"/b/config.json": WHOLE}
    answers["/b/generator.safetensors"] = http_answer(weights[:-3], length=len(weights))
    with answering(answers) as url:
        with pytest.raises(ValueError, match="the connection ended after"):
            find_bundle(f"{url}/b")
        answers["/b/generator.safetensors"] = http_answer(PAGE)
        with pytest.raises(ValueError, match="generator.safetensors is not the file"):
            find_bundle(f"{url}/b")
        answers["/b/generator.safetensors"] = http_answer(weights)
        assert (find_bundle(f"{url}/b") / "generator.safetensors").read_bytes() == weights


def test_an_endless_download_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("RESYNTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_module, "LARGEST_DOWNLOAD", 3 << 20)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    endless = lambda: itertools.chain([head], itertools.repeat(bytes(1 << 16)))  # noqa: E731
    with answering({"/a.zip": endless}) as url:
        with pytest.raises(ValueError, match="a.zip is larger than 3 MiB"):
            find_bundle(f"{url}/a.zip")
    assert not list((tmp_path / "cache").iterdir())
