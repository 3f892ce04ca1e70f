"""Packed splits: the same items as of files, resumed and sharded packing, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.iterators import EpochBatchIterator
from small_corpus import write_data, write_f0_data

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.datasets.wav_dataset import WavDataset
from fairseq_resynth.data.packed import verify_pack
from fairseq_resynth.data.streams import read_streams

LENGTHS = {"train": [16000, 20480, 32000, 17000, 25600, 30000, 1000], "valid": [16000, 12800]}


def pack(data, outdir, *options) -> int:
    """Packs in audio files of 0.1 MB, two rows each."""
    small = "fairseq_resynth.cli.pack._SAMPLES_A_MEGABYTE"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, 52_000)
        options = ["--workers", "1", "--shard-size", "1", *options]
        return main(["pack", str(data), "--outdir", str(outdir), *options])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("pack") / "data", LENGTHS)


@pytest.fixture(scope="module")
def packed_once(source):
    assert pack(source, source.parent / "packed") == 0
    return source.parent / "packed"


@pytest.fixture
def packed(packed_once, tmp_path):
    """A packed folder that a test may spoil."""
    return shutil.copytree(packed_once, tmp_path / "packed")


def dataset(data, split="train", segment_size=2560):
    return UnitDataset(data, split, read_streams(data), segment_size)


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])) for name in left
    )


@pytest.mark.parametrize(("split", "segment_size"), [("train", 2560), ("valid", 0)])
def test_items_are_the_same_bit_for_bit(source, packed_once, split, segment_size):
    assert read_streams(packed_once) == read_streams(source)
    files, packs = (dataset(data, split, segment_size) for data in (source, packed_once))
    assert sorted(path.name for path in (packed_once / "train.pack").glob("audio*.npy")) == [
        f"audio-{number:05d}.npy" for number in range(4)
    ]
    for epoch in (1, 2):
        for each in (files, packs):
            each.set_epoch(epoch)
        assert np.array_equal(files.ordered_indices(), packs.ordered_indices())
        assert all(same(files[row], packs[row]) for row in range(len(files)))
    waves = [WavDataset(data, split, 320, 3200, 1, moving=False) for data in (source, packed_once)]
    assert all(same(waves[0][row], waves[1][row]) for row in range(len(files)))


def test_the_recordings_are_needed_no_longer(source, tmp_path):
    data = shutil.copytree(source, tmp_path / "data")
    (data / "train.tsv").write_text(
        (data / "train.tsv").read_text().replace(str(source), str(data))
    )
    assert pack(data, tmp_path / "packed", "--split", "train") == 0
    shutil.rmtree(data)
    assert same(dataset(tmp_path / "packed")[0], dataset(source)[0])


def test_continuous_f0_comes_along(tmp_path):
    data = write_f0_data(tmp_path / "data", {"train": [16000, 20480]})
    description = {
        "f0_channels": 2,
        "representation": "continuous",
        "normalize": "speaker_log_zscore",
    }
    (data / "f0_codes.json").write_text(json.dumps(description))
    (data / "train.f0").unlink()
    assert pack(data, tmp_path / "packed") == 0
    files, packs = dataset(data), dataset(tmp_path / "packed")
    assert packs[0]["f0"].shape[0] == 2 and all(same(files[row], packs[row]) for row in range(2))


def iterator(data, workers=0):
    items = dataset(data)

    def batches(epoch):
        items.set_epoch(epoch)
        return items.batch_by_size(items.ordered_indices(), max_sentences=2)

    return EpochBatchIterator(
        items, items.collater, batches(1), seed=1, num_workers=workers,
        reuse_dataloader=False,
    ), batches  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_continues_at_the_same_item(source, packed_once, workers):
    whole, _ = iterator(source)
    expected = [batch["id"].tolist() for batch in whole.next_epoch_itr(shuffle=True)]
    first, _ = iterator(packed_once, workers)
    running = first.next_epoch_itr(shuffle=True)
    seen = [next(running) for _ in range(2)]
    state = first.state_dict()
    resumed, _ = iterator(packed_once, workers)
    resumed.load_state_dict(state)
    rest = list(resumed.next_epoch_itr(shuffle=True))
    assert [batch["id"].tolist() for batch in seen + rest] == expected
    files, _ = iterator(source)
    for left, right in zip(seen + rest, files.next_epoch_itr(shuffle=True), strict=True):
        assert torch.equal(left["target"], right["target"])
        assert torch.equal(left["net_input"]["units"], right["net_input"]["units"])


def contents(folder):
    """Every file but the record of what made them, which has times in it."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent.name != ".made_by"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_four_shares_make_the_bytes_of_one_run(source, packed_once, tmp_path, capsys):
    for share in (3, 1, 4):
        assert pack(source, tmp_path / "packed", "--shard", f"{share}/4", "--json") == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["train"]["joined"]
    assert pack(source, tmp_path / "packed", "--shard", "2/4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["joined"]
    assert contents(tmp_path / "packed") == contents(packed_once)


def test_packing_continues_and_says_what_it_reused(source, packed, capsys):
    before = contents(packed)
    (packed / "train.pack" / "audio-00001.npy").unlink()
    (packed / "train.pack" / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"index.json does not exist. .*resynth pack"):
        dataset(packed)
    assert pack(source, packed, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"]["written"], found["train"]["reused"]) == (1, 3)
    assert (found["valid"]["written"], found["valid"]["reused"]) == (0, 1)
    assert contents(packed) == before


def test_other_units_and_other_shards_replace_the_old(source, packed, tmp_path):
    data = shutil.copytree(source, tmp_path / "data")
    lines = (data / "train.units").read_text().replace("1", "2")
    (data / "train.units").write_text(lines)
    assert pack(data, packed, "--shard-size", "2") == 0
    assert len(list((packed / "train.pack").glob("audio*.npy"))) < 4
    assert all(same(dataset(data)[row], dataset(packed)[row]) for row in range(7))
    assert not same(dataset(source)[0], dataset(packed)[0])


def spoil_manifest(packed):
    path = packed / "train.tsv"
    path.write_text(path.read_text().replace("\t1000\n", "\t1001\n"))
    return (
        ValueError,
        r"index.json was packed from rows with the hash \w+, .*train.tsv has \w+. Run",
    )


def spoil_missing(packed):
    (packed / "train.pack" / "audio-00002.npy").unlink()
    return (
        FileNotFoundError,
        r"audio-00002.npy does not exist, expected \d+ bytes. Run `resynth pack",
    )


def spoil_short(packed):
    path = packed / "train.pack" / "audio-00002.npy"
    path.write_bytes(path.read_bytes()[:-100])
    return ValueError, r"audio-00002.npy has \d+ bytes, expected \d+. Run `resynth pack .* --outdir"


def spoil_units(packed):
    path = packed / "train.pack" / "units.npy"
    path.write_bytes(path.read_bytes()[:-2])
    return ValueError, r"units.npy has \d+ bytes, expected \d+. Run `resynth pack"


def spoil_text(packed):
    (packed / "train.units").write_text("1 2\n" * 7)
    return ValueError, r"train.units and the packed .*units.npy both exist, expected one of them"


SPOILERS = [spoil_manifest, spoil_missing, spoil_short, spoil_units, spoil_text]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_what_does_not_fit_is_refused_when_opened(packed, spoil):
    kind, message = spoil(packed)
    with pytest.raises(kind, match=message):
        dataset(packed)


def test_another_byte_is_found_by_its_hash(packed, capsys):
    assert main(["pack", str(packed), "--verify"]) == 0
    assert "train.pack: 8 files are whole" in capsys.readouterr().out
    path = packed / "train.pack" / "audio-00003.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"audio-00003.npy has the hash \w+, expected \w+. Delete"):
        verify_pack(packed, "train")


def test_rows_that_cannot_be_packed_are_named(tmp_path, capsys):
    data = write_data(tmp_path / "data", {"train": [16000, 16000, 16000, 16000]})
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(data / "wav" / "train_0.wav", wav, 16000, subtype="PCM_24")
    soundfile.write(data / "wav" / "train_2.wav", wav[:-1], 16000, subtype="PCM_16")
    (data / "wav" / "train_3.wav").unlink()
    assert pack(data, tmp_path / "packed") == 1
    out = capsys.readouterr().out
    assert "3 rows of train failed" in out and "not complete" in out
    assert "train_0.wav: found more than 16 bits per sample" in out
    assert "found 15999 samples, the manifest says 16000" in out
    assert not (tmp_path / "packed" / "train.pack" / "index.json").exists()


def test_packing_into_its_own_folder_is_refused(source, capsys):
    assert main(["pack", str(source), "--outdir", str(source)]) == 2
    assert "expected a folder to write other than" in capsys.readouterr().err
