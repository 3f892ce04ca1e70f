"""Names of files, links and lists as other systems and tools write them."""

import codecs
import os

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import read_lines, read_manifest
from fairseq_resynth.data.storage.files import atomic_path, read_json, walk_files
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.preparation.manifest import FileFinder, read_reference, scan
from fairseq_resynth.preparation.preprocess import PreprocessOptions, preprocess

WAV = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
NAMES = [
    "a b",
    " a",
    "a|b",
    "a.b.c",
    "a'\"b",
    "ä" * 120,
    "n" * 251,
    "-o",
    "a:1:2",
    "%s{0}$(x)",
    "昔",
]
ENCODINGS = {
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16-le": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "blank lines at the end": lambda text: f"{text}\n\n".encode(),
    "mark and windows": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
}


def write(path, wav=WAV):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        soundfile.write(stream, wav, 16000, format="WAV")


def test_any_name_that_is_utf_8_goes_through_preparation(tmp_path):
    for name in NAMES:
        write(tmp_path / "in" / f"{name}.wav")
    options = PreprocessOptions(format="wav")
    summary = preprocess(tmp_path / "in", tmp_path / "out", options)
    assert summary.written == len(NAMES) and not summary.failed
    assert preprocess(tmp_path / "in", tmp_path / "out", options).reused == len(NAMES)
    assert main(f"manifest {tmp_path}/out --outdir {tmp_path}/data --speaker-from single "
                "--valid-percent 0 --test-percent 0".split()) == 0  # fmt: skip
    manifest = read_manifest(tmp_path / "data/train.tsv")
    assert sorted(manifest.paths) == sorted(f"{name}.wav" for name in NAMES)
    assert all(len(read_audio(manifest.path(row))) == 8000 for row in range(len(manifest)))
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{name}.wav\n" for name in NAMES), encoding="utf-8")
    assert read_reference(listed, FileFinder(manifest.paths).names) == [
        f"{name}.wav" for name in NAMES
    ]


def test_names_that_are_not_utf_8_are_converted_and_named(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / os.fsdecode(b"gr\xfc\xdfe.wav")
    write(path)
    (tmp_path / "in" / os.fsdecode(b"leer\xe9.wav")).touch()
    soundfile.write(tmp_path / "in/tab\tin.wav", WAV, 16000)
    arguments = ["--srcdir", f"{tmp_path}/in", "--outdir", f"{tmp_path}/out", "--workers", "1"]
    assert main(["preprocess", *arguments]) == 1
    assert r"leer\udce9.wav" in capsys.readouterr().out
    assert len(read_audio(tmp_path / "out" / os.fsdecode(b"gr\xfc\xdfe.flac"))) == 8000
    with pytest.raises(
        ValueError, match=r"2 of 2 files .*(?s:.)*not UTF-8.*(?s:.)*a tab or a line"
    ):
        scan(tmp_path / "out")


def test_names_of_other_systems_are_found():
    finder = FileFinder(["s/cafe\u0301.wav", "s/b.wav"])
    for reference in ("s/caf\u00e9.flac", "C:\\old\\s\\b.wav"):
        assert len(finder.candidates(reference)) == 1
    both = FileFinder(["s/cafe\u0301.wav", "s/caf\u00e9.wav"])
    assert both.candidates("caf\u00e9") == ["s/caf\u00e9.wav"]


def test_names_with_dots_are_found_with_and_without_suffix():
    finder = FileFinder(["a/take.1.wav", "a/take.2.wav", "b/x.wav"])
    for reference in ("a/take.1", "take.1.wav", "take.1", "/data/a/take.1.flac"):
        assert finder.candidates(reference) == ["a/take.1.wav"]
    assert finder.candidates("b/x.npy") == ["b/x.wav"]


def test_links_are_followed_and_broken_ones_named(tmp_path):
    write(tmp_path / "elsewhere/deep/a.wav")
    source = tmp_path / "in"
    write(source / "b.wav")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "c.wav").symlink_to(source / "b.wav")
    (source / "circle").symlink_to(source)
    found = [path.relative_to(source).as_posix() for path in walk_files(source)]
    assert sorted(found) == ["b.wav", "c.wav", "linked/deep/a.wav"]
    assert sorted(scan(source)) == sorted(found)
    (source / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    summary = preprocess(source, tmp_path / "out", PreprocessOptions())
    assert summary.written == 3 and "does not exist" in summary.failed["gone.wav"]
    with pytest.raises(ValueError, match=r"1 of 4 files .*(?s:.)*gone.wav does not exist"):
        scan(source)


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_lists_of_other_systems_are_read(tmp_path, encode):
    (tmp_path / "train.tsv").write_bytes(encode(f"{tmp_path}\nä/b c.wav\t8000\nd.wav\t320\n"))
    manifest = read_manifest(tmp_path / "train.tsv")
    assert list(manifest.paths) == ["ä/b c.wav", "d.wav"] and manifest.root == tmp_path
    (tmp_path / "train.speaker").write_bytes(encode("zoë\nanna\n"))
    assert read_lines(tmp_path / "train.speaker", 2, "") == ["zoë", "anna"]
    (tmp_path / "train.units").write_bytes(encode("1 2 3\n4 5\n"))
    units = read_integer_rows(tmp_path / "train.units", 2, "")
    assert [row.tolist() for row in units] == [[1, 2, 3], [4, 5]]
    (tmp_path / "list").write_bytes(encode("ä/b c.wav|text\nd\n"))
    assert read_reference(tmp_path / "list") == ["ä/b c.wav", "d"]
    (tmp_path / "a.json").write_bytes(encode('{"a": "ä"}\n'))
    assert read_json(tmp_path / "a.json") == {"a": "ä"}


def test_blanks_at_the_ends_of_rows_and_a_missing_root(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path} \na b.wav\t8000 \nd.wav\t320\t \r\n\r\n")
    manifest = read_manifest(path)
    assert list(manifest.paths) == ["a b.wav", "d.wav"]
    assert manifest.num_samples.tolist() == [8000, 320]
    path.write_text("a.wav\t8000\nd.wav\t320\n")
    with pytest.raises(ValueError, match=r"train.tsv:1: found a row, expected the root folder"):
        read_manifest(path)
    (tmp_path / "train.units").write_text("1 2\n\n3\n\n")
    with pytest.raises(ValueError, match=r"train.units:2: the line is empty"):
        read_integer_rows(tmp_path / "train.units", None, "")


def test_rows_with_absolute_paths_name_outputs_inside_their_folder(tmp_path):
    (tmp_path / "train.tsv").write_text(
        f"{tmp_path}\n{tmp_path}/a/b.wav\t800\n/elsewhere/c.wav\t9\n"
    )
    manifest = read_manifest(tmp_path / "train.tsv")
    assert [manifest.name(row) for row in (0, 1)] == ["a/b", "elsewhere/c"]
    assert str(manifest.path(1)) == "/elsewhere/c.wav"


def test_temporary_names_are_never_too_long(tmp_path):
    for name in ("ä" * 127, "a." + "b" * 250, "昔" * 83 + ".wav"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.touch()
        assert (tmp_path / name).is_file()
