"""Tokens of any tokenizer: lossless for every vocabulary and number of codebooks; mistakes in one line."""

import json

import numpy as np
import pytest
from codec_models import DATA, NO_NETWORK, released
from test_codec_commands import run

from fairseq_resynth.codec.format.bitstream import pack_varint
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.tokens import (
    TokenModel,
    Tokens,
    fit_token_model,
    read_tokens,
    vocabularies,
)
from fairseq_resynth.data.unit_files import read_generated_units, read_unit_file
from fairseq_resynth.evaluation.codecs.bench import run_token_bench, stored_bits


def correlated(codebooks=3, size=50, rows=16, frames=60, seed=0) -> list[Tokens]:
    """Tokens that change at each frame; a codebook follows from the one before it up to a small step."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(rows):
        token = rng.integers(0, 6, frames).cumsum() * 7 % size
        columns = [token]
        for _ in range(codebooks - 1):
            columns.append((3 * columns[-1] + rng.integers(0, 3, frames)) % size)
        found.append(Tokens(f"row {row}", np.stack(columns, axis=1)))
    return found


@pytest.fixture(scope="module")
def model() -> TokenModel:
    return fit_token_model(correlated(), [50] * 3, NO_NETWORK)


@pytest.mark.parametrize("sizes", [[50], [50, 50], [50, 5000, 4097], [1 << 24], [1, 2]])
def test_any_vocabulary_and_number_of_codebooks_comes_back(sizes, tmp_path):
    rng = np.random.default_rng(len(sizes))
    draws = [rng.integers(0, size, (7, 9)) for size in sizes]
    tokens = [Tokens(str(row), np.stack([draw[row] for draw in draws], axis=1)) for row in range(7)]
    fitted = fit_token_model(tokens[:3], sizes, NO_NETWORK)
    fitted.save(tmp_path / "m")
    loaded = TokenModel.load(tmp_path / "m")
    for one in tokens:
        data, bits = fitted.encode(one)
        np.testing.assert_array_equal(loaded.decode(data), one.frames)
        assert len(bits) == len(sizes) and 8 * (len(data) - 1) - 8 <= bits.sum() <= 8 * len(data)


def test_rows_of_one_token_and_of_none_come_back(model):
    for frames in (0, 1):
        one = Tokens("short", np.zeros((frames, 3), np.int64))
        assert model.decode(model.encode(one)[0]).shape == (frames, 3)


def test_a_codebook_is_predicted_by_the_one_before_it(model):
    """The difference of up to 2 takes log2(3) bits, and the first codebook's step log2(6)."""
    tested = correlated(seed=1)
    together, _ = run_token_bench(model, tested)
    assert together["bits_by_codebook"][0] == pytest.approx(np.log2(6), abs=1.0)
    for bits in together["bits_by_codebook"][1:]:
        assert np.log2(3) - 0.1 < bits < 3
    alone = [Tokens(one.name, one.frames[:, [1]]) for one in correlated()]
    own = fit_token_model(alone, [50], NO_NETWORK)
    found, _ = run_token_bench(own, [Tokens(one.name, one.frames[:, [1]]) for one in tested])
    assert found["bits_by_codebook"][0] > together["bits_by_codebook"][1] + 1


def test_run_lengths_cost_nothing_where_every_frame_changes():
    rng = np.random.default_rng(2)
    steps = 1 + rng.integers(0, 8, (30, 80)).cumsum(axis=1) * 3
    changing = [Tokens(str(row), step[:, None] % 25) for row, step in enumerate(steps)]
    steps = 3 * rng.integers(0, 8, (30, 80))
    fitted = fit_token_model(changing[:20], [25], NO_NETWORK)
    bits = sum(fitted.encode(one)[1][0] for one in changing[20:]) / 800
    assert bits < np.log2(8) + 0.6  # of which the change bit, learned from 1600 tokens, is a part


def test_stored_sizes_are_those_of_the_bytes():
    tokens = [Tokens("a", np.zeros((1000, 2), np.int64)), Tokens("b", np.zeros((10, 2), np.int64))]
    found = stored_bits(tokens, [100, 300])
    assert found["fixed"] == 1010 * (7 + 9)
    assert found["zlib_all"] < found["zlib"] < 8 * 100 and found["xz_all"] < 8 * 100


@pytest.mark.parametrize("kind", ["txt", "jsonl", "frames.jsonl", "npy", "turned.npy", "npz"])
def test_every_kind_of_file_gives_the_same_tokens(kind, tmp_path):
    rows = correlated(codebooks=4, rows=2, frames=5)
    path = tmp_path / f"tokens.{kind}"
    flat = [row.frames.ravel().tolist() for row in rows]
    if kind == "txt":
        path.write_text("\n".join(" ".join(map(str, row)) for row in flat))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"audio": "a.wav", "units": row}) for row in flat))
    elif kind == "frames.jsonl":
        lists = [{"audio": "a.wav", "codes": row.frames.T.tolist()} for row in rows]
        path.write_text("\n".join(map(json.dumps, lists)))
    elif kind == "npz":
        np.savez(path, a=rows[0].frames, b=rows[1].frames[None])
    else:
        rows = rows[:1]
        np.save(path, rows[0].frames.T if kind == "turned.npy" else rows[0].frames)
    found = read_tokens(path, 4)
    assert [one.frames.tolist() for one in found] == [row.frames.tolist() for row in rows]


def test_lists_of_codebooks_are_no_units(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"audio": "a.wav", "units": [[1, 2], [3, 4], [5, 6]]}))
    for read in (read_unit_file, read_generated_units):
        with pytest.raises(
            ValueError, match="a.jsonl:1: expected one unit per frame, found lists of 2"
        ):
            read(path)
    path.write_text(json.dumps({"audio": "a.wav", "units": [[1, 2], [3]]}))
    with pytest.raises(ValueError, match="expected lists of one length"):
        read_tokens(path, 2)


def test_damaged_bytes_and_models_are_refused(model, tmp_path):
    one = correlated()[0]
    data, _ = model.encode(one)
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            model.decode(bytes(changed))  # there is no checksum: other tokens may come out
        except CodecError:
            pass
    for cut in (b"", data[:5], data + b"\1"):
        with pytest.raises(CodecError):
            model.decode(cut)
    path = tmp_path / "m"
    model.save(path)
    stored = path.read_bytes()
    for place in rng.integers(0, len(stored), 30):
        path.write_bytes(stored[:place])
        with pytest.raises(ValueError):
            TokenModel.load(path)
    path.write_bytes(stored.replace(b"[50, 50, 50]", b"[50, 50, 51]"))
    with pytest.raises(ValueError, match=r"is damaged: its models are of \[50, 50, 50\] symbols"):
        TokenModel.load(path)


def test_a_header_with_a_line_separator_breaks_no_message(model, tmp_path):
    path = tmp_path / "tokens.safetensors"
    model.save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'"U8"', '"\u2028"'.encode(), 1)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(ValueError, match="is damaged: Error while deserializing") as raised:
        TokenModel.load(path)
    assert len(str(raised.value).splitlines()) == 1


def test_fitted_and_measured_by_the_commands(capsys, tmp_path):
    rows, files = correlated(codebooks=2, rows=20), []
    for name, part in (("fit", rows[:15]), ("test", rows[15:])):
        files.append(tmp_path / f"{name}.txt")
        files[-1].write_text("\n".join(" ".join(map(str, r.frames.ravel())) for r in part))
    out = tmp_path / "m.safetensors"
    command = ["fit-codec", files[0], "--codebooks", 2, "--network", 0, "--out", out, "--json"]
    fitted = json.loads(run(capsys, *command)[1])
    assert fitted["vocabularies"] == [50, 50] and fitted["frames"] == 900
    status, text, _ = run(capsys, "codec-bench", files[1], "--model", out, "--json")
    found = json.loads(text)
    assert status == 0 and found["frames"] == 300 and len(found["files"]) == 5
    assert found["fixed_bits_per_frame"] == 12
    assert found["bits_per_frame"] < 6.5 < found["xz_bits_per_frame"]
    assert found["saved_of_fixed"] == pytest.approx(1 - found["bits_per_frame"] / 12, abs=1e-3)


def test_a_large_vocabulary_needs_no_option(capsys, tmp_path):
    path, out = tmp_path / "a.txt", tmp_path / "m.safetensors"
    path.write_text("\n".join(["1 2 49999 3 77 2"] * 4))
    assert run(capsys, "fit-codec", path, "--network", 0, "--out", out)[0] == 0
    found = json.loads(run(capsys, "codec-bench", path, "--model", out, "--json")[1])
    assert found["vocabularies"] == [50000] and found["fixed_bits_per_frame"] == 16


def test_units_are_compared_with_zlib_and_xz_too(capsys, tmp_path):
    path, out = tmp_path / "a.txt", tmp_path / "m.safetensors"
    path.write_text("\n".join(" ".join(map(str, row.units)) for row in released("vctk")[:12]))
    assert run(capsys, "fit-codec", path, "--network", 0, "--out", out)[0] == 0
    found = json.loads(run(capsys, "codec-bench", path, "--model", out, "--json")[1])
    assert found["content_bps"] < found["content_xz_all_bps"] < found["content_fixed_bps"] == 350


@pytest.mark.parametrize(
    "content, arguments, reason",
    [
        ("1 2 3 4\n5 6 7\n", ["--codebooks", "2"], "line_2: found tokens of shape (3,)"),
        (
            "1 2 _ 4\n",
            ["--codebooks", "2"],
            "a.txt:1: expected integers from 0 on, separated by spaces",
        ),
        ("1 -2\n", ["--codebooks", "2"], "a.txt:1: expected integers from 0 on"),
        ("1 2\n", ["--codebooks", "0"], "found 0 codebooks, expected 1 or more"),
        (
            "1 2 9 4\n",
            ["--codebooks", "2", "--num-units", "9"],
            "found tokens 1 to 9 in codebook 0",
        ),
        ("99999999 2\n", ["--codebooks", "2"], "expected up to 16777216"),
        ("99999999 2\n", [], "expected up to 16777216"),
        ("", ["--codebooks", "2"], "is empty"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, content, arguments, reason):
    path = tmp_path / "a.txt"
    path.write_text(content)
    command = ["fit-codec", path, *arguments, "--network", "0", "--out", tmp_path / "m"]
    status, _, err = run(capsys, *command)
    assert status == 2 and reason in err and err.count("\n") == 1, err
    assert not (tmp_path / "m").exists()


def test_arrays_with_holes_or_of_other_codebooks_are_refused(capsys, tmp_path, model):
    path, out = tmp_path / "a.npy", tmp_path / "m"
    model.save(out)
    for array, reason in (
        (
            np.zeros((9, 4), np.int64),
            "found tokens of shape (9, 4), expected whole frames of 3 codebooks",
        ),
        (np.full((9, 3), -1), "expected integers from 0 on, found -1"),
        (np.full((9, 3), np.nan), "expected an array of integers"),
        (
            np.full((9, 3), 50),
            "found tokens 50 to 50 in codebook 0, the model knows 0 to 49: fit one",
        ),
    ):
        np.save(path, array)
        status, _, err = run(capsys, "codec-bench", path, "--model", out)
        assert status == 2 and reason in err.splitlines()[-1], err
    lines = DATA / "lj_hubert100.txt"
    status, _, err = run(capsys, "codec-bench", lines, "--model", out)
    assert status == 2 and "lj_hubert100.txt" in err and err.count("\n") == 1


def test_no_tokens_are_one_sentence():
    with pytest.raises(ValueError, match="found no tokens"):
        vocabularies([], 2)


@pytest.mark.parametrize("frames", [104_519_398, 1 << 20])
def test_a_few_bytes_claim_no_memory_for_the_frames_they_announce(model, frames):
    data, _ = model.encode(correlated()[0])
    with pytest.raises(CodecError, match="the tokens are damaged|truncated"):
        model.decode(pack_varint(frames) + data[1:])
