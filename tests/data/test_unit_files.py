"""Units that other tools wrote: token strings, JSON, tables and arrays, recognized by their content."""

import json
import re

import numpy as np
import pytest
import torch

from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file

UNITS = [[3, 3, 1], [2, 5]]


def _units(rows):
    return [row.units.tolist() for row in rows]


def _manifest_rows():
    """Rows as unit-hifigan has them."""
    return [
        {"audio": f"a/{name}.wav", "units": units, "speaker": "anna", "style": style}
        for name, units, style in zip("xy", UNITS, ("calm", "sad"), strict=True)
    ]


@pytest.mark.parametrize(
    "line,units,f0,style",
    [
        ("[Hu12][Hu7]", [12, 7], None, None),
        ("<Un12><Un7><Un7>", [12, 7, 7], None, None),
        ("[Speech][St7][Hu1][Pi3] [Hu2][Hu2][Pi4][Hu9]", [1, 2, 2, 9], [3, 3, 3, 4], "7"),
        ("[St7][Hu1][St7][Hu2][St8]", [1, 2], None, "7 7 8"),
        ("x|[Hu5]", [5], None, None),
        ('{"file_name": "x.wav", "audio_repr": "<Hu4><Hu2>"}', [4, 2], None, None),
        ('{"file_name": "x.wav", "units": [4, 2], "duration": [1, 3]}', [4, 2, 2, 2], None, None),
        ('{"id": 5, "hubert": "4 2", "pitch": "1", "style": "9 9", "f0": null}', [4, 2], None, "9"),
    ],
)
def test_token_strings_and_json_lines(line, units, f0, style, tmp_path):
    (tmp_path / "in").write_text(line + "\n")
    (row,) = read_unit_file(tmp_path / "in")
    assert row.units.tolist() == units and row.tokens.get("style") == style
    assert (None if row.f0 is None else row.f0.tolist()) == f0
    assert row.name in (None, "x", "5")


NAMED = dict(zip(("a-1", "a-2"), UNITS, strict=True))
TEXT = {name: " ".join(map(str, units)) for name, units in NAMED.items()}


@pytest.mark.parametrize(
    "text,key",
    [
        ("".join(f"{name} {units}\n" for name, units in TEXT.items()), ""),
        ("".join(f"{name}|{units}\n" for name, units in NAMED.items()), ""),
        (json.dumps(NAMED, indent=1), ""),
        (json.dumps(TEXT), ""),
        (json.dumps([{"id": name, "units": units} for name, units in NAMED.items()]), ""),
        ("id,units\n" + "".join(f"{name},{units}\n" for name, units in TEXT.items()), ""),
        (
            "id\tsrc_audio\ttgt_audio\n"
            + "".join(f"{name}\t/x.wav\t{units}\n" for name, units in TEXT.items()),
            "tgt_audio",
        ),
    ],
    ids=["Kaldi", "lists", "JSON by name", "JSON text", "JSON list", "CSV", "fairseq S2ST"],
)
def test_text_of_other_tools(text, key, tmp_path):
    (tmp_path / "in").write_text(text + "\n\n")
    found = read_unit_file(tmp_path / "in", key)
    assert {row.name: row.units.tolist() for row in found} == NAMED


def test_columns_and_recordings_are_named(tmp_path):
    (tmp_path / "in").write_text("id\tsrc\ttgt\na\t1 2\t3 4\n")
    with pytest.raises(ValueError, match="has the columns id, src, tgt: --units-key NAME says"):
        read_unit_file(tmp_path / "in")
    (tmp_path / "in").write_text("id\tunits\na\t1 2\nb\n")
    with pytest.raises(ValueError, match="in:3: expected 2 columns, found 1"):
        read_unit_file(tmp_path / "in")
    (tmp_path / "x.wav").touch()
    for path in (tmp_path, tmp_path / "x.wav"):
        with pytest.raises(ValueError, match="x.wav is a recording, expected units; `resynth res"):
            read_unit_file(path)


def test_a_manifest_as_jsonl_and_as_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    rows = _manifest_rows()
    (tmp_path / "a.csv").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "b.txt")
    with (
        ipc.new_stream(tmp_path / "c", table.schema) as stream,
        ipc.new_file(tmp_path / "d", table.schema) as file,
    ):
        stream.write(table)
        file.write(table)
    for name in ("a.csv", "b.txt", "c", "d"):
        found = read_unit_file(tmp_path / name)
        assert _units(found) == UNITS and [row.name for row in found] == ["a/x", "a/y"]
        assert [(row.speaker, row.tokens) for row in found] == [
            ("anna", {"style": "calm"}),
            ("anna", {"style": "sad"}),
        ]


def test_a_dataset_of_hugging_face(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    rows = [
        {"audio": {"bytes": b"1", "path": f"{n}.wav"}, "units": u, "language": "en"}
        for n, u in zip("xy", UNITS, strict=True)
    ]
    folder = tmp_path / "dataset" / "train"
    folder.mkdir(parents=True)
    for number, row in enumerate(rows):
        table = pa.Table.from_pylist([row])
        with ipc.new_stream(folder / f"data-{number}.arrow", table.schema) as stream:
            stream.write(table)
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    found = read_unit_file(folder)
    assert _units(found) == UNITS and [row.name for row in found] == ["x", "y"]
    assert found[0].tokens == {"language": "en"}
    (tmp_path / "dataset" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match="holds the splits train: give the folder of one"):
        read_unit_file(tmp_path / "dataset")


def test_a_table_is_asked_for_its_column(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": UNITS, "b": [[1], [2]]}), tmp_path / "in")
    with pytest.raises(ValueError, match="has the columns a, b: --units-key NAME says which"):
        read_unit_file(tmp_path / "in")
    assert _units(read_unit_file(tmp_path / "in", "a")) == UNITS
    (tmp_path / "in").write_bytes((tmp_path / "in").read_bytes()[:-9])
    with pytest.raises(ValueError, match="in is not readable as a table"):
        read_unit_file(tmp_path / "in", "a")


@pytest.mark.parametrize("name", ["u.npy", "u.dat"])
def test_arrays(name, tmp_path):
    path, tensors = tmp_path / name, [torch.tensor(units) for units in UNITS]

    def saved(value):
        with path.open("wb") as stream:
            (np.save if isinstance(value, np.ndarray) else torch.save)(
                *(stream, value) if isinstance(value, np.ndarray) else (value, stream)
            )
        return [(row.name, row.units.tolist()) for row in read_unit_file(path)]

    assert saved(np.array(UNITS[0], np.int16)) == [("u", UNITS[0])]
    assert saved(np.array(UNITS[:1])) == [("u", UNITS[0])]
    assert saved(tensors[0]) == [("u", UNITS[0])]
    assert saved(tensors) == [(None, units) for units in UNITS]
    assert saved(dict(zip("xy", tensors, strict=True))) == [("x", UNITS[0]), ("y", UNITS[1])]
    assert saved({"units": tensors[0], "speaker": "anna"}) == [(None, UNITS[0])]
    with path.open("wb") as stream:
        np.savez(stream, x=UNITS[0], y=UNITS[1])
    assert _units(read_unit_file(path)) == UNITS


def test_rows_of_an_array_and_files_of_a_folder(tmp_path):
    np.save(tmp_path / "b.npy", np.arange(6).reshape(2, 3))
    with pytest.raises(ValueError, match=re.escape("(2, 3): give --units-key all if each of its")):
        read_unit_file(tmp_path / "b.npy")
    assert _units(read_unit_file(tmp_path / "b.npy", "1")) == [[3, 4, 5]]
    found = read_unit_file(tmp_path / "b.npy", "all")
    assert [row.name for row in found] == ["b_1", "b_2"] and _units(found)[0] == [0, 1, 2]
    (tmp_path / "b.npy").unlink()
    (tmp_path / "s").mkdir()
    for file, units in zip(("s/x.npy", "y.npy"), UNITS, strict=True):
        np.save(tmp_path / file, units)
    assert [(r.name, r.units.tolist()) for r in read_unit_file(tmp_path)] == [
        ("s/x", UNITS[0]),
        ("y", UNITS[1]),
    ]


@pytest.mark.parametrize(
    "line,key,message",
    [
        ("[Hu1][Hu][Hu2]", "", "in:1: expected tokens like .* found '\\[Hu\\]' in place 2"),
        ("[Hu1][][Hu2]", "", "found '\\[\\]' in place 2"),
        ("[Hu1]hello[Hu2]", "", "found 'hello\\[Hu2\\]' in place 2"),
        ("[Hu1][Hu2", "", "found '\\[Hu2' in place 2"),
        ("[Hu1]<Un2>", "", "in:1: found the tokens Hu and Un: --units-key KIND names"),
        ("[Ab1][Ab2]", "", "found tokens Ab, expected those of units \\(Hu or Un\\), Pi and St"),
        ("[Ab1][Pi2]", "Hu", "found tokens Ab, expected those of units \\(Hu\\)"),
        ("[St1][Pi2]", "", "in:1: expected units, found none on the line"),
        ("[Hu1][Hu-2]", "", "found '\\[Hu-2\\]' in place 2"),
        ("[Hu99999999999999999999]", "", "in place 1"),
        ("</s>", "", "found '</s>' in place 1"),
        ('{"file_name": 3, "units": [1]}', "", "in:1: expected the path of a recording, found 3"),
        ('{"tokens": [1]}', "", "expected one of the keys .* --units-key KEY names that"),
        ('{"units": [1.5]}', "", "expected integers from 0 on"),
    ],
)
def test_holes_and_foreign_symbols(line, key, message, tmp_path):
    (tmp_path / "in").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_unit_file(tmp_path / "in", key)


def test_the_key_names_what_holds_the_units(tmp_path):
    (tmp_path / "in").write_text('[Ab1][Pi3][Ab2]\n{"tokens": "4 5"}\n')
    (tmp_path / "in").write_text("[Ab1][Pi3][Ab2]\n")
    assert _units(read_unit_file(tmp_path / "in", "Ab")) == [[1, 2]]
    (tmp_path / "in").write_text('{"tokens": "4 5", "units": "1"}\n')
    assert _units(read_unit_file(tmp_path / "in", "tokens")) == [[4, 5]]


@pytest.mark.parametrize(
    "value,message",
    [
        (np.array([1.5]), "expected an array of integers of one or two dimensions, found float64"),
        (np.array([-1]), "expected integers from 0 on, found -1"),
        (np.zeros((1, 1, 1), int), "of shape \\(1, 1, 1\\)"),
        (np.zeros(0, int), "expected units, found none"),
        (np.array([None]), "is not readable as arrays of numpy"),
        ({"x": {"y": 1}}, "expected one of the keys"),
        ([[1, [2]]], "expected an array of integers"),
        ([re.compile("x")], "is not readable as units|holds re._compile"),
    ],
)
def test_wrong_arrays(value, message, tmp_path):
    path = tmp_path / "in"
    with path.open("wb") as stream:
        if isinstance(value, np.ndarray):
            np.save(stream, value)
        else:
            torch.save(value, stream)
    with pytest.raises(ValueError, match=message):
        read_unit_file(path)


def test_files_cut_short(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9))
    torch.save(torch.arange(9), tmp_path / "b.pt")
    for name in ("a.npy", "b.pt"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ValueError, match="is not readable as"):
            read_unit_file(path)


def test_samples_of_slamkit_without_their_special_symbols(tmp_path):
    (tmp_path / "in").write_text("<S><Un1><Un2><S><PAD>\n<S>\n")
    found = read_generated_units(tmp_path / "in")
    assert _units(found.rows) == [[1, 2]] and found.empty == ["line_2"]
    assert found.dropped == {"<S>": 3, "<PAD>": 1}


@pytest.mark.parametrize("kind", ["stream", "parquet", "npy"])
def test_damaged_files_are_one_sentence(kind, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    table, path, random = pa.table({"units": UNITS}), tmp_path / "in", np.random.default_rng(1)
    if kind == "stream":
        with ipc.new_stream(path, table.schema) as stream:
            stream.write(table)
    elif kind == "parquet":
        parquet.write_table(table, path)
    else:
        with path.open("wb") as file:
            np.save(file, np.arange(9))
    whole = bytearray(path.read_bytes())
    for place in random.integers(8, len(whole), 300):
        damaged = whole.copy()
        damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_unit_file(path)
        except ValueError as error:  # damage that no reader can notice may pass
            assert "\n" not in str(error)


def test_tables_name_the_package_that_reads_them(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=re.escape("pip install 'fairseq_resynth[parquet]'")):
        read_unit_file(tmp_path / "in")
