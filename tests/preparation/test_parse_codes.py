"""resynth parse-codes: every format of units, splits, and lengths that disagree."""

import ast
import json

import numpy as np
import pytest
from small_corpus import write_data

from fairseq_resynth.cli.main import main
from fairseq_resynth.constants import SPLITS
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.streams import read_streams


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """20 utterances with units of 320 samples; (manifest, names, units)."""
    folder = tmp_path_factory.mktemp("corpus") / "data"
    write_data(folder, {"train": [16000 + 320 * i for i in range(20)]})
    names = [f"train_{i}" for i in range(20)]
    return folder / "train.tsv", names, (folder / "train.units").read_text().splitlines()


def write(path, names, units, style):
    rows = list(zip(names, units, strict=True))
    lines = {
        "gslm": [f"{name}|{row}" for name, row in reversed(rows)],
        "hubert": [row for _, row in rows],
        "cpc": [f"{name}\t{row.replace(' ', ',')}" for name, row in rows],
        "dict": [str({"audio": f"/a/{name}.flac", "hubert": row}) for name, row in rows],
    }[style]
    path.write_text("\n".join(lines) + "\n")
    return path


def parse(codes, manifest, out, *options):
    arguments = ["--codes", codes, "--manifest", manifest, "--outdir", out, *options]
    return main(["parse-codes", *map(str, arguments)])


@pytest.mark.parametrize("style", ["gslm", "hubert", "cpc", "dict"])
def test_formats(style, corpus, tmp_path):
    manifest, names, units = corpus
    codes = write(tmp_path / "codes", names, units, style)
    out = tmp_path / "out"
    assert parse(codes, manifest, out, "--cv", "0.1", "--tt", "0.2", "--num-units", "10") == 0
    streams = read_streams(out)
    assert (streams.unit_hop, streams.num_units) == (320, 10)
    expected = dict(zip(names, units, strict=True))
    sizes = {}
    for split in ("train", "valid", "test"):
        dataset = UnitDataset(out, split, streams)
        sizes[split] = len(dataset)
        for row in range(len(dataset)):
            found = " ".join(map(str, dataset.units[row]))
            assert found == expected[dataset.manifest.name(row)]
    assert sizes == {"train": 14, "valid": 2, "test": 4}


def test_published_split_dict_lines_and_durations(corpus, tmp_path):
    manifest, names, units = corpus
    codes = write(tmp_path / "codes", names, units, "gslm")
    (tmp_path / "val.txt").write_text("{'audio': 'x/train_7.wav', 'hubert': '1'}\ntrain_19.wav|1\n")
    out = tmp_path / "out"
    options = ("--ref-valid", tmp_path / "val.txt", "--dict-lines", "hubert", "--min-dur", "1.04")
    assert parse(codes, manifest, out, *options) == 0
    lines = [ast.literal_eval(line) for line in (out / "val.txt").read_text().splitlines()]
    assert [line["audio"].rsplit("/")[-1] for line in lines] == ["train_19.wav", "train_7.wav"]
    assert lines[1]["hubert"] == units[7] and lines[1]["duration"] == (16000 + 7 * 320) / 16000
    kept = (out / "train.tsv").read_text()
    assert "train_1.wav" not in kept and "train_2.wav" in kept  # 1.02 s and 1.04 s
    assert json.loads((out / "units.json").read_text())["codes_hash"]


def test_short_rows_are_left_out_of_speakers_and_styles_too(corpus, tmp_path):
    manifest, names, units = corpus
    rows = [
        {"audio": name, "hubert": row, "spk": "anna", "style": "calm"}
        for name, row in zip(names, units, strict=True)
    ]
    (tmp_path / "codes").write_text("".join(f"{row}\n" for row in rows))
    out = tmp_path / "out"
    options = ("--min-dur", "1.04", "--cv", "0.1", "--tt", "0.1")
    assert parse(tmp_path / "codes", manifest, out, *options) == 0
    kept = sum(len((out / f"{split}.units").read_text().splitlines()) for split in SPLITS)
    assert kept == 18
    assert all(
        "train_0." not in (out / f"{split}.tsv").read_text()
        and set((out / f"{split}.speaker").read_text().split()) == {"anna"}
        for split in SPLITS
    )


def test_a_manifest_in_parquet_brings_speakers_and_styles(corpus, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    manifest, names, units = corpus
    rows = [
        {"audio": f"/a/{n}.wav", "units": list(map(int, u.split())), "speaker": 7, "style": n[-1:]}
        for n, u in zip(names, units, strict=True)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "codes")
    out = tmp_path / "out"
    assert parse(tmp_path / "codes", manifest, out, "--cv", "0.1", "--tt", "0.2") == 0
    for split in ("train", "valid", "test"):
        stems = [
            line.split(".")[0] for line in (out / f"{split}.tsv").read_text().split("\n")[1:-1]
        ]
        assert (out / f"{split}.style").read_text().split() == [stem[-1] for stem in stems]
        assert set((out / f"{split}.speaker").read_text().split()) == {"7"}
    codes = write(tmp_path / "lines", names, units, "gslm")
    capsys.readouterr()
    assert parse(codes, manifest, out) == 0  # what it does not know of is not removed
    assert "train.style in" in capsys.readouterr().out and (out / "train.style").exists()
    rows[3].pop("style")
    codes.write_text("".join(f"{row}\n" for row in rows))
    capsys.readouterr()
    assert parse(codes, manifest, tmp_path / "no") == 2
    assert "1 rows have no style, but others have:\n  train_3.wav" in capsys.readouterr().err
    np.save(tmp_path / "array", np.zeros((20, 50), int))
    assert parse(tmp_path / "array.npy", manifest, tmp_path / "no") == 2
    assert "give --units-key all if each of its rows" in capsys.readouterr().err


def test_names_of_windows_and_frames_of_25_ms(corpus, tmp_path):
    manifest, names, units = corpus
    shorter = [line.rsplit(" ", 2)[0] for line in units]  # an encoder that pads nothing
    windows = [f"C:\\data\\{name}.wav" for name in names]
    assert (
        parse(write(tmp_path / "codes", windows, shorter, "gslm"), manifest, tmp_path / "out") == 0
    )


def _without_last(names, units):
    return names[:-1], units[:-1]


@pytest.mark.parametrize(
    "style,change,message",
    [
        ("hubert", _without_last, "has 19 lines without names, .* 20 rows"),
        ("gslm", _without_last, "1 files of .*train.tsv have no line:\n  train_19.wav"),
        ("gslm", lambda n, u: (["x", *n[1:]], u), "1 lines name files that .*\n  x"),
        ("gslm", lambda n, u: ([n[1], *n[1:]], u), "1 lines name a file twice"),
        (
            "gslm",
            lambda n, u: (n, [u[0] + " 1 1", *u[1:]]),
            "train_0.wav: 52 units of 320 .* 16000",
        ),
        ("gslm", lambda n, u: (n, [u[0][:-8], *u[1:]]), "units and audio disagree in 1 rows"),
        ("gslm", lambda n, u: (n, ["1 2" for _ in u]), "samples of audio per unit, expected about"),
        ("gslm", lambda n, u: (n, [u[0].replace(u[0][0], "99", 1), *u[1:]]), "holds unit 99"),
        ("cpc", lambda n, u: (n, ["a b", *u[1:]]), "codes:1: expected integers"),
    ],
)
def test_wrong_codes(style, change, message, corpus, tmp_path, capsys):
    import re

    manifest, names, units = corpus
    codes = write(tmp_path / "codes", *change(names, units), style)
    assert parse(codes, manifest, tmp_path / "out", "--num-units", "10") == 2
    assert re.search(message, capsys.readouterr().err, re.DOTALL)
    assert not (tmp_path / "out").exists()
