"""Aligned crops, short utterances, batches, and files that contradict each other."""

import json

import numpy as np
import pytest
import soundfile
import torch
from small_corpus import write_data, write_f0_data

from fairseq_resynth.data.datasets.base import check_segment_size, crop_start, whole_units
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.streams import StreamSpec, read_streams

HOP = 320
SEGMENT = 2560


@pytest.fixture
def counting(tmp_path):
    """One utterance whose sample k is k, unit k is k and pitch code k is k: misalignment shows."""
    data = write_data(tmp_path / "data", {"train": [25600]}, num_units=80, num_f0_codes=20)
    wav = np.arange(25600, dtype=np.int32) - 2**14
    soundfile.write(data / "wav" / "train_0.wav", wav.astype(np.int16), 16000, subtype="PCM_16")
    (data / "train.units").write_text(" ".join(map(str, range(80))) + "\n")
    (data / "train.f0").write_text(" ".join(map(str, range(20))) + "\n")
    return data


def first_sample(wav: torch.Tensor) -> int:
    return int((wav[0] * 2**15).round()) + 2**14


def test_crops_are_aligned_and_reach_every_start(counting):
    dataset = UnitDataset(counting, "train", read_streams(counting), SEGMENT)
    starts = set()
    for epoch in range(200):
        dataset.set_epoch(epoch)
        item = dataset[0]
        start = first_sample(item["wav"])
        steps = np.diff(item["wav"].numpy()) * 2**15
        assert np.allclose(steps, 1) and len(item["wav"]) == SEGMENT
        assert item["units"].tolist() == list(range(start // HOP, start // HOP + SEGMENT // HOP))
        assert item["f0_codes"].tolist() == [start // 1280, start // 1280 + 1]
        starts.add(start)
    assert starts == set(range(0, 25600 - SEGMENT + 1, 1280))


@pytest.mark.parametrize(
    "hop,code_hop,segment",
    [
        (640, 1280, 2560),
        (640, 320, 2560),
        (480, 320, 2880),
        (400, 1280, 8800),
        (200, 0, 2400),
    ],
)
def test_crops_of_other_rates_are_aligned(hop, code_hop, segment, tmp_path):
    samples = 32000 // hop * hop
    sizes = {"unit_hop": hop, "num_units": samples, "num_f0_codes": code_hop}
    data = write_f0_data(tmp_path / "data", {"train": [samples]}, **sizes)
    wav = (np.arange(samples) - 2**14).astype(np.int16)
    soundfile.write(data / "wav" / "train_0.wav", wav, 16000, subtype="PCM_16")
    frames = np.load(data / "f0" / "train.npy")
    np.save(data / "f0" / "train.npy", np.arange(len(frames), dtype=np.float32) + 1)
    streams = {"units": hop, "f0": code_hop} if code_hop else {"units": hop}
    for suffix, stride in streams.items():
        numbers = range(-(-samples // stride))
        (data / f"train.{suffix}").write_text(" ".join(map(str, numbers)) + "\n")
    if code_hop:
        codes = {"num_codes": samples, "f0_code_hop": code_hop}
        (data / "f0_codes.json").write_text(json.dumps(codes))
    dataset, starts = UnitDataset(data, "train", read_streams(data), segment, source_f0=True), set()
    for epoch in range(60):
        dataset.set_epoch(epoch)
        item = dataset[0]
        start = first_sample(item["wav"])
        starts.add(start)
        assert len(item["wav"]) == segment
        for suffix, stride in streams.items():
            name = "f0_codes" if suffix == "f0" else suffix
            first, count = start // stride, -(-segment // stride)
            assert start % stride == 0 and item[name].tolist() == [*range(first, first + count)]
        assert start % 80 == 0
        assert item["source_f0"][0].tolist() == [
            *range(start // 80 + 1, (start + segment) // 80 + 1)
        ]
    assert len(starts) > 3


@pytest.mark.parametrize("hop,expected", [(320, 8960), (640, 8960), (400, 8800), (20000, 20000)])
def test_the_default_crop_is_whole_units(hop, expected):
    assert whole_units(8960, hop) == expected


@pytest.mark.parametrize("hop", [0.5, "320", -320])
def test_a_hop_is_a_whole_number_of_samples(hop, tmp_path):
    data = write_data(tmp_path / "data", {"train": [16000]})
    (data / "units.json").write_text(json.dumps({"num_clusters": 10, "unit_hop": hop}))
    with pytest.raises(ValueError, match="unit_hop is .*, expected a whole number above 0"):
        read_streams(data)


def test_crop_depends_on_seed_epoch_and_index_alone():
    draws = [crop_start(32000, SEGMENT, 1280, seed, epoch, index)
             for seed in range(3) for epoch in range(3) for index in range(3)]  # fmt: skip
    assert len(set(draws)) > 10
    assert crop_start(32000, SEGMENT, 1280, 1, 2, 3) == crop_start(32000, SEGMENT, 1280, 1, 2, 3)
    assert crop_start(SEGMENT, SEGMENT, 1280, 1, 2, 3) == 0


def test_workers_draw_a_new_crop_each_epoch(counting):
    """Workers outlive an epoch, and must not keep the first one's crops."""
    from fairseq_resynth.tasks.utterances import UtteranceTask

    dataset = UnitDataset(counting, "train", read_streams(counting), SEGMENT)
    task = UtteranceTask(None)
    starts = []
    for epoch in range(1, 9):
        iterator = task.get_batch_iterator(dataset, max_sentences=1, epoch=epoch, num_workers=1)
        for batch in iterator.next_epoch_itr():
            starts.append(first_sample(batch["target"][0, 0]))
    assert len(set(starts)) > 3


def test_short_utterances_are_padded_not_repeated(tmp_path):
    data = write_data(tmp_path / "data", {"train": [16000, 1600]})
    dataset = UnitDataset(data, "train", read_streams(data), SEGMENT)
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["net_input"]["unit_lengths"].tolist() == [8, 5]
    assert batch["target"].shape == (2, 1, SEGMENT)
    wav, _ = soundfile.read(data / "wav" / "train_1.wav", dtype="float32")
    assert torch.equal(batch["target"][1, 0, :1600], torch.from_numpy(wav))
    assert not batch["target"][1, 0, 1600:].any()
    assert "unit_lengths" not in dataset.collater([dataset[0], dataset[0]])["net_input"]


def test_last_batch_is_kept_at_fairseqs_default_multiple(tmp_path):
    data = write_data(tmp_path / "data", {"train": [3200] * 5})
    dataset = UnitDataset(data, "train", read_streams(data), SEGMENT)
    batches = dataset.batch_by_size(
        dataset.ordered_indices(), max_sentences=2, required_batch_size_multiple=8
    )
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3, 4]


def test_an_utterance_above_max_tokens_gets_its_own_batch(tiny_data):
    dataset = UnitDataset(tiny_data, "train", read_streams(tiny_data))
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=60)
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3, 4, 5]
    assert all(len(batch) == 1 for batch in batches)


def test_whole_utterances_in_order_of_length(tiny_data):
    dataset = UnitDataset(tiny_data, "valid", read_streams(tiny_data))
    order = dataset.ordered_indices()
    assert dataset.sizes[order].tolist() == sorted(dataset.sizes.tolist())
    assert len(dataset[0]["wav"]) == 16000


def test_streams_that_the_directory_has(tmp_path):
    units = write_data(tmp_path / "units", {"train": [3200]}, num_f0_codes=0, speakers=())
    assert set(UnitDataset(units, "train", read_streams(units))[0]) == {"id", "units", "wav"}
    everything = write_data(tmp_path / "all", {"train": [3200]})
    chosen = read_streams(everything, "units,speaker")
    assert chosen.num_f0_codes == 0 and chosen.speakers == ("anna",)
    with pytest.raises(FileNotFoundError, match="--streams asks for f0"):
        read_streams(units, "units,f0")
    with pytest.raises(ValueError, match="expected some of units, f0, speaker"):
        read_streams(everything, "units,pitch")


def test_streams_survive_a_checkpoint(tiny_data):
    streams = read_streams(tiny_data)
    assert StreamSpec.from_dict(json.loads(json.dumps(streams.to_dict()))) == streams


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


def mistake(name, data):
    """Spoils a data directory; returns the message to expect."""
    path = data / "train.units"
    lines = path.read_text().splitlines()
    if name == "unit out of range":
        path.write_text("\n".join(["77 " + lines[0].split(" ", 1)[1], *lines[1:]]))
        return r"train.units:1: unit 77 is outside the table of 10 units \(0 to 9\)"
    if name == "a line missing":
        path.write_text("\n".join(lines[:-1]))
        return r"train.units has 1 lines, its manifest 2 rows. .*resynth quantize"
    if name == "an empty line":
        path.write_text("\n".join(["", lines[1]]))
        return r"train.units:1: the line is empty"
    if name == "no integer":
        path.write_text("\n".join([lines[0] + " x", lines[1]]))
        return r"train.units:1: expected integers"
    if name == "too few units":
        path.write_text("\n".join([lines[0][: len(lines[0]) // 2], lines[1]]))
        return r"train.units:1: .* units of 320 samples do not fit the 16000 samples of train_0.wav"
    if name == "too few pitch codes":
        (data / "train.f0").write_text("1 2\n1 2\n")
        return r"train.f0:1: 2 pitch codes of 1280 samples, and 50 units of 320 need 13"
    if name == "unknown speaker":
        (data / "train.speaker").write_text("anna\nzoe\n")
        return r"train.speaker:2: speaker 'zoe' was not trained on; known are anna, boris"
    if name == "another quantizer's codes":
        rewrite(data / "f0_codes.json", '"v"', '"w"')
        return r"f0_codes.json: vqvae_hash is w, the model was trained with v. Run `resynth quantize-f0"
    if name == "another k-means's units":
        rewrite(data / "units.json", '"k"', '"l"')
        return r"units.json: kmeans_hash is l, the model was trained with k. Run `resynth quantize "
    rewrite(data / "train.tsv", str(data / "wav"), "/nowhere/wav")
    return r"train.tsv:1: the root /nowhere/wav is not a folder on this machine"


@pytest.mark.parametrize(
    "name",
    [
        "unit out of range", "a line missing", "an empty line", "no integer", "too few units",
        "too few pitch codes", "unknown speaker", "another quantizer's codes",
        "another k-means's units", "a manifest of another root",
    ],
)  # fmt: skip
def test_contradictory_files(name, tmp_path):
    data = write_data(tmp_path / "data", {"train": [16000, 16000]})
    streams = read_streams(data)
    message = mistake(name, data)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        UnitDataset(data, "train", streams)


def test_segment_sizes():
    assert check_segment_size(8960, 320, 1280) == 1280
    assert check_segment_size(960, 320, 0) == 320
    with pytest.raises(
        ValueError, match="9000 samples, expected a multiple of 320 .* 8960 for instance"
    ):
        check_segment_size(9000, 320, 1280)


def test_units_made_elsewhere(tmp_path):
    data = write_data(tmp_path / "data", {"train": [16000]}, num_f0_codes=0)
    (data / "units.json").unlink()
    with pytest.raises(ValueError, match="give --unit-hop"):
        read_streams(data)
    assert read_streams(data, unit_hop=320, num_units=10).num_units == 10
