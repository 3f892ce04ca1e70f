"""Damage that mutations of valid files found in the readers of a data directory."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from small_corpus import write_data, write_f0_data

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.decoding import FfmpegFile
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.audio.uploads import decode_audio_bytes
from fairseq_resynth.data.datasets.conditioning import known_rows
from fairseq_resynth.data.manifest import read_manifest
from fairseq_resynth.data.packed import open_audio, verify_pack
from fairseq_resynth.data.pitch.extraction import F0Cache, F0Options
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.speaker_vectors import read_vectors
from fairseq_resynth.data.storage.files import misfit
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.streams import StreamSpec, Utterance, read_streams
from fairseq_resynth.data.unit_files import read_unit_file
from fairseq_resynth.data.units import read_integer_rows
from fairseq_resynth.inference.synthesis import Job, _checked
from fairseq_resynth.inference.voices import speaker_indices
from fairseq_resynth.preparation.f0 import build_f0
from fairseq_resynth.preparation.merge import merge
from fairseq_resynth.preparation.pack import pack_split
from fairseq_resynth.preparation.preprocess import PreprocessOptions, preprocess
from fairseq_resynth.preparation.unit_bpe import UnitBpe, train_bpe


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A data directory with an F0 cache, and a packed one beside it."""
    folder = tmp_path_factory.mktemp("damaged")
    write_f0_data(folder / "data", {"train": [2560, 3840]})
    pack_split(folder / "data", "train", folder / "pack")
    return folder


@pytest.fixture
def data(packed, tmp_path):
    """A copy to damage."""
    shutil.copytree(packed, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("units.json", [1], "units.json is damaged: found .1., expected an object"),
        ("f0_codes.json", "x", "f0_codes.json is damaged: found 'x', expected an object"),
        ("f0_codes.json", {"num_codes": [5]}, r"num_f0_codes is \[5\], expected an integer from 0"),
        ("f0_codes.json", {"num_codes": 10**30}, "num_f0_codes is 1000.*, expected an integer"),
        ("f0_codes.json", {"f0_code_hop": 0, "num_codes": 5}, "f0_code_hop is 0, expected .* from 1"),
        ("speaker_vectors.json", {"means": {}}, "found no speaker_dim"),
        ("speaker_vectors.json", {"speaker_dim": 4}, "found no means"),
    ],
)  # fmt: skip
def test_descriptions_of_streams(data, name, content, complaint):
    (data / "data" / name).write_text(json.dumps(content))
    speakers = "vector" if name == "speaker_vectors.json" else "table"
    with pytest.raises(ValueError, match=complaint):
        read_streams(data / "data", speaker_input=speakers)


def test_statistics_are_numbers(data):
    path = data / "data" / "speakers.json"
    entry = {"f0_mean": "120", "f0_std": 20.0}
    path.write_text(json.dumps({"speakers": {}, "global": entry}))
    with pytest.raises(ValueError, match="speakers.json: speaker statistics lack"):
        SpeakerStatistics.load(path)


@pytest.mark.parametrize(
    "header", [b"\x93NUMPY\x01\x00\x03\x00{{{", b"", b"\x93NUMPY\x01\x00v\x00"]
)
def test_arrays_with_damaged_headers(data, header):
    folder = data / "data"
    manifest = read_manifest(folder / "train.tsv")
    for path in (folder / "f0" / "train.npy", folder / "train.speaker_vectors.npy"):
        path.write_bytes(header)
    for read in (
        lambda: F0Cache(folder, "train", manifest),
        lambda: read_vectors(folder, "train", 2),
    ):
        with pytest.raises(ValueError, match=r"train\S*npy is not readable as an array of numbers"):
            read()


def test_description_of_the_f0_cache(data):
    folder = data / "data"
    for content, complaint in (([], "expected an object"), ({}, "found no rows")):
        (folder / "f0" / "train.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=complaint):
            F0Cache(folder, "train", read_manifest(folder / "train.tsv"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda index: index.pop("rows"), "found no rows"),
        (lambda index: index["audio"][0].pop("bytes"), "found no bytes in 'audio'/0"),
        (lambda index: index["audio"][0].update(rows=[0, 640]), "has 640 rows of audio"),
        (lambda index: index["audio"][0].update(rows=[1, 2]), "has the rows"),
        (lambda index: index["streams"]["units"].update(file="../../units.npy"), "no name of a file"),
        (lambda index: index["streams"].pop("units_lengths"), "'units_lengths' is missing"),
        (lambda index: index["streams"].update(units=[1]), "expected an object"),
    ],
)  # fmt: skip
def test_index_of_a_pack(data, change, complaint):
    path = data / "pack" / "train.pack" / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=complaint):
        open_audio(data / "pack", "train", read_manifest(data / "pack" / "train.tsv"))
        read_integer_rows(data / "pack" / "train.units", 2, "resynth quantize")


def test_audio_of_a_pack_is_as_long_as_its_rows(data):
    path = data / "pack" / "train.pack" / "audio-00000.npy"
    head = path.read_bytes()
    path.write_bytes(head.replace(b"(6400,)", b"(6300,)"))  # as many bytes
    with pytest.raises(ValueError, match=r"holds \(6300,\) int16, expected \(6400,\)"):
        open_audio(data / "pack", "train", read_manifest(data / "pack" / "train.tsv"))


def test_pack_reads_the_units_before_it_writes(tmp_path, capsys):
    data = write_data(tmp_path / "data", {"train": [2560]})
    (data / "train.units").write_text("1 2 x\n")
    assert main(["pack", str(data), "--outdir", str(tmp_path / "pack"), "--workers", "0"]) == 2
    assert "train.units:1" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    "line",
    ['{"made": "a", "by": "k", "is": 1, "facts": {}}', '{"made": "a", "by": "k", "is": [1, 2, "h"]}',
     "[" * 20_000 + "]" * 20_000],
)  # fmt: skip
def test_record(tmp_path, line):
    (tmp_path / ".made_by").mkdir()
    (tmp_path / ".made_by" / "a.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match="a.jsonl:1: damaged"):
        Record(tmp_path)


def test_names_of_columns_that_are_no_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.arrow"
    table = pyarrow.table({"units": [[1, 2]], "audio": ["a"]})
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(b"audio", b"au\xb4io"))
    with pytest.raises(ValueError, match="a.arrow is not readable as a table"):
        read_unit_file(path)


def test_pieces_of_byte_pairs_that_are_no_text(tmp_path):
    path = tmp_path / "units.bpe"
    train_bpe([np.array([1, 2, 3, 1, 2])], 4, 9, path)
    path.write_bytes(path.read_bytes().replace("\u4e01\u4e02".encode(), b"\xc9#\xec\x12U\xb6"))
    with pytest.raises(ValueError, match="units.bpe is not readable as a sentencepiece model"):
        UnitBpe(path)


def test_flac_that_claims_hours_takes_no_memory_for_them(tmp_path):
    import resource

    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(16000), 16000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the highest bits of the number of samples in STREAMINFO: 2**36
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"a\.flac"):
        read_audio(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_seek_to_nowhere_is_a_code_for_ffmpeg(tmp_path):
    # PyAV prints the traceback of what its file object raises.
    (tmp_path / "a.caf").write_bytes(b"caff")
    with FfmpegFile(tmp_path / "a.caf") as file:
        assert [file.seek(place) for place in (-1, 1 << 62, 1 << 70, 2)] == [-1, -1, -1, 2]


def test_sound_of_an_unknown_encoding():
    import io

    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(1600), 16000, format="WAV")
    content = stream.getvalue().replace(b"fmt \x10\0\0\0\x01\0", b"fmt \x10\0\0\0\x77\x77")
    with pytest.raises(ValueError, match="sound of an unknown encoding|not readable as audio"):
        decode_audio_bytes(content, 10)


def test_misfit_names_the_place():
    shape = {"a": [{str: int}], "b": (str,)}
    assert misfit({"a": [{"x": 1}]}, shape) == ""
    assert misfit({"a": [{"x": 1}, {"y": True}]}, shape) == "True as 'a'/1/'y'"
    assert misfit({"b": "x"}, shape) == "no a"
    assert misfit({"a": {}, "b": "x"}, shape) == "{} as 'a', expected a list"
    assert misfit({"a": [], "b": 2}, shape) == "2 as 'b'"


def test_compressed_members_cannot_claim_memory(tmp_path):
    for name, member in (("a.pt", "a/data.pkl"), ("a.npz", "a.npy")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, b"\0" * (20 << 20))
        with pytest.raises(ValueError, match="would unpack to more bytes|claim 20 MiB"):
            read_unit_file(tmp_path / name)


def test_names_in_manifests_that_no_file_has(tmp_path):
    long = "x" * 5000
    (tmp_path / "root.tsv").write_text(f"{long}\na.wav\t800\n")
    with pytest.raises(
        FileNotFoundError, match="root.tsv:1: the root .* is not a folder"
    ) as raised:
        read_manifest(tmp_path / "root.tsv")
    assert len(str(raised.value)) < 1000
    for path in (f"{long}.wav", f"{long}.zip:0:9", "a\u2028.wav", "a\u2028.zip:0:9"):
        with pytest.raises(FileNotFoundError, match="does not exist") as raised:
            read_audio(tmp_path / path)
        assert len(str(raised.value).splitlines()) == 1


def test_arrays_in_archives_whose_header_is_no_python(tmp_path):
    array = io.BytesIO()
    np.save(array, np.zeros(100, np.int16))
    for header in (array.getvalue().replace(b"}", b"("), array.getvalue().replace(b"{", b"'")):
        (tmp_path / "a.zip").write_bytes(header)
        with pytest.raises(ValueError, match="is not readable as an array") as raised:
            read_audio(f"{tmp_path}/a.zip:0:{len(header)}")
        assert len(str(raised.value).splitlines()) == 1


def test_a_repeated_name_with_a_line_separator_is_one_line(tmp_path):
    (tmp_path / "a.tsv").write_text(".\n\u2028/b.wav\t800\n\u2028/b.wav\t800\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a.tsv:3: .* is already on line 2") as raised:
        read_manifest(tmp_path / "a.tsv")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["rows", "source"])
def test_line_separators_in_the_index_of_a_pack_break_no_message(packed, tmp_path, key):
    shutil.copytree(packed / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "train.pack" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": "0", key: "a\u2028b"}))
    with pytest.raises(ValueError, match="was packed from rows with the hash") as raised:
        open_audio(path.parents[1], "train", read_manifest(path.parents[1] / "train.tsv"))
    assert len(str(raised.value).splitlines()) == 1


def test_a_hash_with_a_line_separator_breaks_no_message(packed, tmp_path):
    shutil.copytree(packed / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "train.pack" / "index.json"
    index = json.loads(path.read_text())
    index["audio"][0]["hash"] = "a\u2028b"
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has the hash .* expected a b") as raised:
        verify_pack(tmp_path / "pack", "train")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "facts", [{"files": 3}, {"files": [], "notes": []}, {"files": ["a.flac"], "notes": ["x"]}]
)
def test_what_no_preprocess_has_recorded_is_made_again(tmp_path, facts):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    options = PreprocessOptions()
    with Record(tmp_path / "out") as record:
        key = record.key(options, 16000, tmp_path / "a.wav")
        record.keep(f"{key}a.flac", facts)
    assert preprocess(tmp_path, tmp_path / "out", options, workers=0).written == 1
    assert (tmp_path / "out" / "a.flac").is_file()


def test_keys_of_units_with_a_line_break_are_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("{'audio': 'a.wav', 'hube\x0bt': '1 2 3'}\n")
    with pytest.raises(ValueError, match="expected one of the keys") as raised:
        read_unit_file(tmp_path / "a.txt")
    assert len(str(raised.value).splitlines()) == 1


def test_names_of_columns_and_packed_files_that_break_lines_or_are_too_long(packed, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a\nb": ["x"], "c": [[1]]})
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="has the columns a b, c") as raised:
        read_unit_file(tmp_path / "a.arrow")
    assert len(str(raised.value).splitlines()) == 1
    shutil.copytree(packed / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "train.pack" / "index.json"
    index = json.loads(path.read_text())
    index["streams"]["units"]["file"] = "9" * 5000
    path.write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="does not exist, expected"):
        read_integer_rows(tmp_path / "pack" / "train.units", 2, "resynth quantize")


@pytest.mark.parametrize("durations", ["[1, 1000000000]", '"1 999999999999999999"'])
def test_run_lengths_cannot_claim_memory(tmp_path, durations):
    (tmp_path / "lines.jsonl").write_text(f'{{"units": [1, 2], "durations": {durations}}}\n')
    with pytest.raises(ValueError, match="lines.jsonl:1: durations of 1.* at most"):
        read_unit_file(tmp_path / "lines.jsonl")


def test_names_with_line_separators_in_what_a_model_knows_are_one_line(data):
    broken = "a\u2028b"
    streams = StreamSpec(320, 10, speakers=(broken, "boris"), units={"num_clusters": broken})
    (data / "data" / "units.json").write_text('{"num_clusters": "x\\u2028"}')
    job = Utterance(np.array([11]), None, broken)
    for read in (
        lambda: known_rows(data / "data" / "train.speaker", 2, streams.speakers, "speaker"),
        lambda: speaker_indices(None, streams, 1),
        lambda: streams.check_same_encoders(data / "data"),
        lambda: _checked([Job(broken, job)], "units.txt", streams),
        lambda: _checked([Job(broken, job)] * 2, "units.txt", StreamSpec(320, 20)),
    ):
        with pytest.raises(ValueError) as raised:
            read()
        assert len(str(raised.value).splitlines()) == 1, str(raised.value)


def _drop(key):
    return lambda state: state.pop(key)


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory):
    """A data directory with two shards of F0 that nobody has joined."""
    folder, kept = tmp_path_factory.mktemp("shards"), {}
    data, options = write_data(folder / "data", {"train": [2560, 3840]}), F0Options("dio")
    for index in (1, 2):
        build_f0(data, "train", options, Shard(index, 2), 0, True)
        kept |= {file.name: file.read_bytes() for file in (data / "f0").iterdir()}
        shutil.rmtree(data / "f0")
    (data / "f0").mkdir()
    for name, content in kept.items():
        if "-of-2" in name:
            (data / "f0" / name).write_bytes(content)
    return data


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state["key"].pop("rows"), "was made from another train.tsv"),
        (lambda state: state["key"].update({"a\u2028b": 1}), "were made differently .a b."),
        (_drop("shape"), "is damaged: found no shape"),
        (lambda state: state.update(shape=[7]), "found the shape .7., and 320 bytes in the parts"),
        (lambda state: state.update(shape=["x"]), "found 'x' as shape/0"),
        (lambda state: state.update(manifest="\u2028"), "does not exist. Make it with"),
        (lambda state: state.update(manifest="x" * 5000), "does not exist. Make it with"),
        (lambda state: state.update(described={"x" * 5000: {}}), "is too long for a file"),
        (lambda state: state.update(described={"../x": {}}), "points outside the output folder"),
    ],
)
def test_damaged_states_of_shards_are_refused(two_shards, tmp_path, change, complaint):
    data = shutil.copytree(two_shards, tmp_path / "data")
    path = data / "f0" / "train.npy.1-of-2.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    with pytest.raises((ValueError, FileNotFoundError), match=complaint) as raised:
        merge(data)
    assert len(str(raised.value).splitlines()) == 1
    assert not (data / "f0" / "train.npy").exists() and not list(tmp_path.glob("**/.*.tmp*"))
