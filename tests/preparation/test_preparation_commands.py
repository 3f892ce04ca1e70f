"""preprocess, manifest, f0, quantize-f0 and merge through the command line, on the embedded speech."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.storage.parts import RowsOutcome
from fairseq_resynth.modules.quantizers import F0Vqvae, F0VqvaeSizes
from fairseq_resynth.preparation import f0_codes

REPOSITORY = Path(__file__).resolve().parents[2]
SPEECH = REPOSITORY / "examples/asterisk/speech"
RESYNTH = Path(sys.executable).with_name("resynth")
VOICES = ["english", "french", "italian", "russian", "spanish"]


@pytest.fixture
def resynth(capsys):
    """Runs a verb in this process: (status, stdout, stderr)."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse
            status = exit.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def installed(*arguments, **kwargs):
    return subprocess.run(
        [RESYNTH, *map(str, arguments)], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """The four shortest prompts of each voice, as 48 kHz stereo, prepared by the installed command."""
    folder = tmp_path_factory.mktemp("audio")
    for voice in VOICES:
        (folder / "raw" / voice).mkdir(parents=True)
        for path in sorted((SPEECH / voice).glob("*.flac"), key=lambda path: path.stat().st_size)[
            :4
        ]:
            wav, _ = soundfile.read(path, dtype="float32")
            stereo = np.stack([resample(wav, 16000, 48000)] * 2, 1)
            soundfile.write(folder / "raw" / voice / f"{path.stem}.wav", stereo, 48000)
    words = (
        "--srcdir",
        folder / "raw",
        "--outdir",
        folder / "16k",
        "--pad",
        "--workers",
        2,
        "--json",
    )
    done = installed("preprocess", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 20
    assert "preprocess: 100%" in done.stderr
    return folder / "16k"


@pytest.fixture(scope="module")
def prepared(audio, tmp_path_factory):
    """A data folder with manifests and F0 (dio)."""
    data = tmp_path_factory.mktemp("prepared") / "data"
    split = ["manifest", audio, "--outdir", data, "--speaker-from", "parent", "--valid-percent", 25]
    split += ["--language-from", "parent"]
    assert main([str(word) for word in split]) == 0
    assert main(["f0", str(data), "--method", "dio", "--workers", "1"]) == 0
    return data


@pytest.fixture
def data(prepared, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def files_of(folder: Path):
    """Every file but the record of what made them, which has times in it."""
    files = [
        path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".made_by"
    ]
    return sorted(path.relative_to(folder) for path in files)


def same_files(first: Path, second: Path):
    names = files_of(first)
    assert names == files_of(second)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_every_verb_has_help(resynth):
    for verb in ("preprocess", "manifest", "f0", "quantize-f0", "merge"):
        status, out, _ = resynth(verb, "--help")
        assert status == 0 and f"usage: resynth {verb}" in out


# preprocess


def test_preprocess_says_what_it_reused(audio, resynth):
    raw = audio.parent / "raw"
    status, out, _ = resynth(
        "preprocess", "--srcdir", raw, "--outdir", audio, "--pad", "--workers", 1
    )
    assert status == 0 and out == "0 files written (0.0 min), 20 reused\n"


def test_preprocess_names_failures_and_exits_with_1(tmp_path, resynth):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.wav").touch()
    soundfile.write(tmp_path / "in/good.wav", np.zeros(16000), 16000)
    status, out, _ = resynth(
        "preprocess", "--srcdir", tmp_path / "in", "--outdir", tmp_path / "out", "--workers", 1
    )
    assert status == 1
    assert "1 files written" in out and "1 failed and were left out:\n  empty.wav:" in out


# manifest


def test_manifest_splits_by_speaker(audio, prepared):
    for split, rows in {"train": 14, "valid": 5, "test": 1}.items():
        lines = (prepared / f"{split}.tsv").read_text().splitlines()
        assert lines[0] == str(audio) and len(lines) == rows + 1
        speakers = (prepared / f"{split}.speaker").read_text().splitlines()
        assert speakers == [line.split("/")[0] for line in lines[1:]]
        assert (prepared / f"{split}.language").read_text().splitlines() == speakers
        assert all(int(line.split("\t")[1]) % 1280 == 0 for line in lines[1:])
    assert set((prepared / "train.speaker").read_text().split()) == set(VOICES)


def test_manifest_reproduces_a_split_from_its_own_files(audio, prepared, tmp_path, resynth):
    references = [
        word
        for split in ("train", "valid", "test")
        for word in (f"--ref-{split}", prepared / f"{split}.tsv")
    ]
    status, out, _ = resynth(
        "manifest", audio, "--outdir", tmp_path, "--speaker-from", "parent", *references, "--json"
    )
    assert status == 0 and json.loads(out)["splits"]["train"]["files"] == 14
    for name in ("train.tsv", "valid.tsv", "test.tsv", "train.speaker"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()


def test_manifest_refuses_unprepared_audio(audio, tmp_path, resynth):
    status, _, err = resynth("manifest", audio.parent / "raw", "--outdir", tmp_path)
    assert status == 2 and "20 of 20 files cannot go into a manifest" in err
    assert "found 48000 Hz, expected 16000; run `resynth preprocess`" in err


# f0


def test_f0_statistics_and_json(data, resynth):
    status, out, _ = resynth("f0", data, "--method", "dio", "--json")
    summary = json.loads(out)
    assert status == 0 and summary["splits"]["train"]["reused"] == 14
    speakers = json.loads((data / "speakers.json").read_text())
    assert set(speakers["speakers"]) == set(VOICES) and summary["speakers"] == speakers["speakers"]
    voiced = np.load(data / "f0/train.npy")
    voiced = voiced[voiced > 0].astype(np.float64)
    assert speakers["global"]["f0_mean"] == pytest.approx(voiced.mean(), rel=1e-9)
    assert speakers["global"]["f0_std"] == pytest.approx(voiced.std(), rel=1e-6)
    assert speakers["global"]["num_voiced"] == len(voiced)
    men, women = speakers["speakers"]["italian"], speakers["speakers"]["english"]
    assert men["f0_mean"] < 170 < women["f0_mean"]


def test_yaapt_is_the_default_and_runs_in_workers(data, resynth):
    for split in ("valid", "test"):
        (data / f"{split}.tsv").unlink()
    lines = (data / "train.tsv").read_text().splitlines()
    (data / "train.tsv").write_text("\n".join(lines[:4]) + "\n")
    (data / "train.speaker").write_text("english\n" * 3)
    done = installed("f0", data, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["reused"] == 0
    assert json.loads((data / "f0/train.json").read_text())["method"] == "yaapt"


def test_four_shards_give_the_bytes_of_one_run(prepared, data, resynth, monkeypatch):
    monkeypatch.setattr("fairseq_resynth.cli.f0._FEW_FRAMES", 10**6)
    shutil.rmtree(data / "f0")
    (data / "speakers.json").unlink()
    for index in (2, 4, 1):
        status, out, _ = resynth(
            "f0", data, "--method", "dio", "--workers", 1, "--shard", f"{index}/4"
        )
        assert status == 0 and "f0/train.npy: " in out and "waits for the other shards" in out
    status, out, _ = resynth("merge", data)
    assert status == 1 and "f0/train.npy: not joined, shards 3/4 are missing" in out
    status, out, _ = resynth("f0", data, "--method", "dio", "--workers", 1, "--shard", "3/4")
    assert status == 0 and re.search(r"f0/train.npy: \d+ rows, .* written", out)
    assert re.search(r"warning: \d+ speakers have less than a second of voiced speech", out)
    same_files(data, prepared)
    assert resynth("merge", data)[1] == "no parts to join\n"


def test_merge_joins_what_copied_parts_make(prepared, data, tmp_path, resynth):
    others = Path(shutil.copytree(data, tmp_path / "other"))
    for folder, index in ((data, 1), (others, 2)):
        shutil.rmtree(folder / "f0")
        (folder / "speakers.json").unlink()
        assert (
            resynth("f0", folder, "--method", "dio", "--workers", 1, "--shard", f"{index}/2")[0]
            == 0
        )
    for path in (others / "f0").iterdir():
        shutil.copy(path, data / "f0")
    status, out, _ = resynth("merge", data, "--json")
    assert status == 0
    assert sorted(json.loads(out)["joined"]) == [
        "f0/test.npy", "f0/train.npy", "f0/valid.npy", "speakers.json",
    ]  # fmt: skip
    same_files(data, prepared)


def test_merge_refuses_parts_of_another_manifest(data, resynth):
    shutil.rmtree(data / "f0")
    resynth("f0", data, "--method", "dio", "--workers", 1, "--shard", "1/2")
    text = (data / "train.tsv").read_text().splitlines()
    (data / "train.tsv").write_text("\n".join(text[:-1]) + "\n")
    status, _, err = resynth("merge", data)
    assert status == 2 and "train.npy.1-of-2 was made from another train.tsv" in err


def break_row(data: Path, kind: str) -> str:
    """Replaces the audio of train's first row in a root of its own; returns the row's path."""
    lines = (data / "train.tsv").read_text().splitlines()
    root = data / "root"
    shutil.copytree(lines[0], root)
    name, samples = lines[1].split("\t")
    path, count = root / name, int(samples)
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "rate":
        soundfile.write(path, np.zeros(count), 22050)
    elif kind == "stereo":
        soundfile.write(path, np.zeros((count, 2)), 16000)
    elif kind == "silence":
        soundfile.write(path, np.zeros(count), 16000)
    elif kind == "short":
        soundfile.write(path, np.zeros(count - 1280), 16000)
    elif kind == "nan":
        path.unlink()
        name = Path(name).with_suffix(".wav").as_posix()
        soundfile.write(root / name, np.full(count, np.nan), 16000, subtype="FLOAT")
    elif kind == "three":
        soundfile.write(path, np.zeros(3), 16000)
        count = 3
    lines[:2] = [str(root), f"{name}\t{count}"]
    (data / "train.tsv").write_text("\n".join(lines) + "\n")
    return name


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", "does not exist"),
        ("empty", "is empty (0 bytes)"),
        ("rate", "found 22050 Hz, expected 16000; run `resynth preprocess`"),
        ("stereo", "found 2 channels, expected 1"),
        ("nan", "sample 0 is nan, expected finite numbers"),
        ("three", "found samples of shape (3,), expected (320,) or longer"),
        ("short", "the manifest says"),
    ],
)
def test_a_file_without_f0_is_named_and_blocks_its_split(data, resynth, kind, message):
    name = break_row(data, kind)
    shutil.rmtree(data / "f0")
    (data / "speakers.json").unlink()
    command = ("f0", data, "--method", "dio", "--workers", 1)
    status, out, _ = resynth(*command)
    assert status == 1
    assert f"1 rows of f0/train.npy failed:\n  {name}: " in out and message in out
    assert "not written: repair these files" in out
    assert not (data / "f0/train.npy").exists() and not (data / "speakers.json").exists()
    assert (data / "f0/valid.npy").exists()
    status, out, _ = resynth(*command, "--accept-unvoiced")
    assert status == 0 and "f0/train.npy: 14 rows, 13 of them reused; written" in out
    assert f"  {name}: " in out
    flat = np.load(data / "f0/train.npy")
    assert np.isfinite(flat).all() and not flat[: -(-int(first_samples(data)) // 80)].any()


def first_samples(data):
    return (data / "train.tsv").read_text().splitlines()[1].split("\t")[1]


def test_a_mended_file_alone_is_done_again(prepared, data, resynth):
    name = break_row(data, "empty")
    shutil.rmtree(data / "f0")
    assert resynth("f0", data, "--method", "dio", "--workers", 1)[0] == 1
    original = Path((prepared / "train.tsv").read_text().splitlines()[0])
    shutil.copy(original / name, data / "root" / name)
    status, out, _ = resynth("f0", data, "--method", "dio", "--workers", 1)
    assert status == 0 and "14 rows, 13 of them reused" in out
    same_files(data / "f0", prepared / "f0")


def test_a_failed_file_stays_named_when_the_split_is_reused(data, resynth):
    name = break_row(data, "missing")
    shutil.rmtree(data / "f0")
    command = ("f0", data, "--method", "dio", "--workers", 1)
    assert resynth(*command, "--accept-unvoiced")[0] == 0
    status, out, _ = resynth(*command)
    assert status == 1 and f"1 rows of f0/train.npy failed:\n  {name}: " in out
    assert "f0/train.npy: 14 rows, 13 of them reused; written" in out
    assert "no voiced frame" not in out


def test_a_method_whose_package_is_missing_is_one_error_before_the_first_file(
    data, resynth, monkeypatch
):
    shutil.rmtree(data / "f0")
    monkeypatch.setitem(sys.modules, "pyworld", None)
    status, out, err = resynth("f0", data, "--method", "dio", "--workers", 1, "--accept-unvoiced")
    assert status == 2 and not out and err.count("needs pyworld") == 1
    assert not (data / "f0").exists()


def test_silence_is_named_as_a_warning(data, resynth):
    name = break_row(data, "silence")
    (data / "f0/train.npy").unlink()
    status, out, _ = resynth("f0", data, "--method", "dio", "--workers", 1)
    assert status == 1 and "14 rows, 0 of them reused; written" in out
    assert f"warning: 1 files of train have no voiced frame:\n  {name}\n" in out
    assert resynth("f0", data, "--method", "dio", "--workers", 1, "--accept-unvoiced")[0] == 0


def test_a_manifest_of_another_root(data, resynth):
    lines = (data / "train.tsv").read_text().splitlines()
    lines[0] = "/no/such/root"
    (data / "train.tsv").write_text("\n".join(lines) + "\n")
    status, _, err = resynth("f0", data)
    assert status == 2 and "the root /no/such/root is not a folder on this machine" in err


def test_unequal_line_counts(data, resynth):
    (data / "train.speaker").write_text("english\n")
    status, _, err = resynth("f0", data, "--method", "dio")
    assert status == 2 and "train.speaker has 1 lines, its manifest 14 rows" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shard", "5/4"], "--shard: found '5/4', expected I/N"),
        (["--f0-min", "500"], "expected 0 < minimum < maximum"),
        (["--split", "dev"], "dev.tsv does not exist"),
    ],
)
def test_options_of_f0_that_do_not_fit(data, resynth, arguments, message):
    status, _, err = resynth("f0", data, *arguments)
    assert status == 2 and message in err


SLOWLY = """
import sys, time
from fairseq_resynth.cli.main import main
from fairseq_resynth.preparation import f0 as f0_build
extract = f0_build.extract_f0
def slow(*args, **kwargs):
    time.sleep(0.3)
    return extract(*args, **kwargs)
f0_build.extract_f0 = slow
sys.exit(main(sys.argv[1:]))
"""


def heed_interrupts():
    """Shells start what runs in the background with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_f0(data):
    """Starts YAAPT, slow enough to be interrupted, and returns once some rows are done."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "f0", data, "--workers", "1", "--split", "train"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    done = data / "f0/train.npy.1-of-1.rows"
    deadline = time.time() + 60
    while time.time() < deadline and process.poll() is None:
        if done.is_file() and any(done.read_bytes()):
            return process
        time.sleep(0.02)
    raise AssertionError(f"no row was done: {process.communicate()}")


@pytest.mark.parametrize("how, status", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_run_continues_to_the_same_bytes(data, resynth, how, status):
    shutil.rmtree(data / "f0")
    process = start_f0(data)
    os.kill(process.pid, how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    if how == signal.SIGINT:
        assert "interrupted; the same command continues" in err and "Traceback" not in err
    assert not (data / "f0/train.npy").exists()
    rc, out, _ = resynth("f0", data, "--workers", 1, "--split", "train", "--json")
    done = json.loads(out)["splits"]["train"]
    assert rc == 0 and done["joined"] and 1 <= done["reused"] < 14
    interrupted = (data / "f0/train.npy").read_bytes()
    shutil.rmtree(data / "f0")
    assert resynth("f0", data, "--workers", 2, "--split", "train")[0] == 0
    assert (data / "f0/train.npy").read_bytes() == interrupted


# quantize-f0


@pytest.fixture
def f0_vqvae(monkeypatch):
    torch.manual_seed(0)
    f0_vqvae = F0Vqvae(F0VqvaeSizes(num_codes=7, code_dim=8, width=8))
    f0_vqvae(2 * torch.randn(4, 1, 160))  # the first batch fills the codebook
    f0_vqvae.eval()
    monkeypatch.setattr(
        "fairseq_resynth.inference.checkpoints.load_f0_quantizer", lambda path: f0_vqvae
    )
    return f0_vqvae


def test_quantize_f0_writes_a_code_for_every_1280_samples(data, resynth, f0_vqvae):
    status, out, _ = resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--json")
    assert status == 0 and json.loads(out)["num_codes"] == 7
    record = json.loads((data / "f0_codes.json").read_text())
    assert record["f0_code_hop"] == 1280 and record["normalize"] == "speaker_zscore"
    assert record["checkpoint"] == "f0.pt" and len(record["vqvae_hash"]) == 16
    samples = [
        int(line.split("\t")[1]) for line in (data / "train.tsv").read_text().splitlines()[1:]
    ]
    codes = [list(map(int, line.split())) for line in (data / "train.f0").read_text().splitlines()]
    assert [len(row) for row in codes] == [-(-n // 1280) for n in samples]
    entry = json.loads((data / "speakers.json").read_text())["speakers"]["english"]
    f0 = np.load(data / "f0/train.npy")[: -(-samples[0] // 80)]
    normal = np.where(f0 > 0, (f0 - entry["f0_mean"]) / entry["f0_std"], 0).astype(np.float32)
    padded = np.pad(normal, (0, -len(normal) % 16))
    with torch.no_grad():
        expected = f0_vqvae.encode(torch.from_numpy(padded)[None, None])[0].tolist()
    assert codes[0] == expected and len(set(expected)) > 1


def test_quantize_f0_in_shards_again_and_after_an_interruption(data, resynth, f0_vqvae):
    assert resynth("quantize-f0", data, "--checkpoint", "f0.pt")[0] == 0
    whole = {name: (data / name).read_bytes() for name in ("train.f0", "test.f0", "f0_codes.json")}
    _, out, _ = resynth("quantize-f0", data, "--checkpoint", "f0.pt")
    assert "train.f0: 14 rows, 14 of them reused; written" in out
    for name in whole:
        (data / name).unlink()
    for index in (3, 2, 1, 4):
        assert (
            resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--shard", f"{index}/4")[0] == 0
        )
    assert {name: (data / name).read_bytes() for name in whole} == whole
    # What a killed run leaves: a part with whole lines and half a line.
    (data / "train.f0").unlink()
    resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--shard", "1/2")
    part = data / "train.f0.1-of-2"
    part.write_bytes(part.read_bytes()[:-3])
    state = part.with_name(part.name + ".json")
    state.write_text(json.dumps({**json.loads(state.read_text()), "complete": False}))
    _, out, _ = resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--shard", "1/2")
    assert "train.f0: 7 rows, 6 of them reused; waits for the other shards" in out
    assert resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--shard", "2/2")[0] == 0
    assert (data / "train.f0").read_bytes() == whole["train.f0"]


def test_quantize_f0_exits_with_1_if_rows_failed(data, resynth, f0_vqvae, monkeypatch):
    failed = RowsOutcome(failed={"a.wav": "no F0"}, rows=1)
    monkeypatch.setattr(f0_codes, "write_f0_codes", lambda *arguments: failed)
    status, out, _ = resynth("quantize-f0", data, "--checkpoint", "f0.pt")
    assert status == 1 and "a.wav: no F0" in out


def test_quantize_f0_wants_what_f0_wrote(data, resynth, f0_vqvae):
    lines = (data / "valid.speaker").read_text().splitlines()
    (data / "valid.speaker").write_text("\n".join(["clara", *lines[1:]]) + "\n")
    status, _, err = resynth("quantize-f0", data, "--checkpoint", "f0.pt", "--split", "valid")
    assert status == 2 and "unknown speaker 'clara'; the F0 statistics have english, french" in err
    shutil.rmtree(data / "f0")
    status, _, err = resynth("quantize-f0", data, "--checkpoint", "f0.pt")
    assert status == 2 and "f0/train.npy does not exist. Run `resynth f0" in err
    (data / "speakers.json").unlink()
    status, _, err = resynth("quantize-f0", data, "--checkpoint", "f0.pt")
    assert status == 2 and "speakers.json does not exist. Make it with `resynth f0" in err


def test_quantize_f0_with_a_trained_checkpoint(data):
    train = Path(sys.executable).with_name("fairseq-train")
    words = (
        f"{train} {data} --user-dir {REPOSITORY / 'fairseq_resynth'} --task f0_quantization --arch f0_vqvae "
        "--criterion f0_vqvae --optimizer adam --lr 2e-4 --batch-size 4 --max-update 2 --cpu "
        f"--num-workers 0 --save-dir {data / 'checkpoints'} --no-progress-bar --disable-validation"
    )
    subprocess.run(words.split(), check=True, capture_output=True)
    done = installed("quantize-f0", data, "--checkpoint", data / "checkpoints/checkpoint_last.pt")
    assert done.returncode == 0, done.stderr
    assert "train.f0: 14 rows, 0 of them reused; written" in done.stdout
    codes = np.array((data / "train.f0").read_text().split(), dtype=int)
    assert codes.min() >= 0 and codes.max() < 20
    done = installed("quantize-f0", data, "--checkpoint", data / "none.pt")
    assert done.returncode == 2 and "none.pt" in done.stderr and "Traceback" not in done.stderr
