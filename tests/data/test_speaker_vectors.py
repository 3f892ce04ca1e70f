"""Speaker vectors: computed once, drawn against their speaker's mean, refused when they do not fit."""

import json

import numpy as np
import pytest
import torch
from small_corpus import write_data

from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.speaker_vectors import (
    format_vector,
    mean_vector,
    parse_vectors,
    read_vectors,
)
from fairseq_resynth.data.streams import StreamSpec, read_streams
from fairseq_resynth.preparation import speakers
from fairseq_resynth.preparation.speakers import build_speaker_vectors, write_speaker_means

DESCRIPTION = {"encoder": "toy", "encoder_hash": "1", "speaker_dim": 4}


def toy_embed(path):
    """A vector that names its file."""
    index = int(path.stem.split("_")[1])
    vector = np.array([1.0, index, 0, 0], np.float32)
    return vector / np.linalg.norm(vector)


def make(data, embed=toy_embed, **kwargs):
    return {
        split: build_speaker_vectors(data, split, DESCRIPTION, embed, **kwargs)
        for split in ("train", "valid")
    }


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", {"train": [8000] * 6, "valid": [8000] * 2})


@pytest.fixture
def vectors(data):
    make(data)
    write_speaker_means(data, ["valid", "train"], DESCRIPTION)
    return data


def test_one_unit_vector_a_row_and_the_mean_over_train(vectors):
    rows = read_vectors(vectors, "train", 6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(rows[3], toy_embed(vectors / "train_3.wav"))
    means = parse_vectors(json.loads((vectors / "speaker_vectors.json").read_text())["means"], 4)
    np.testing.assert_allclose(means["anna"], mean_vector(rows[[0, 2, 4]]), atol=1e-5)
    assert np.linalg.norm(means["boris"]) == pytest.approx(1, abs=1e-5)


def test_a_second_run_reuses_and_an_interrupted_one_continues(data):
    calls = []

    def counted(path):
        calls.append(path.stem)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return toy_embed(path)

    with pytest.raises(KeyboardInterrupt):
        make(data, counted)
    outcome = make(data, counted)
    assert outcome["train"].reused == 3 and len(calls) == 4 + 3 + 2
    assert make(data, counted)["train"].reused == 6 and len(calls) == 9
    np.testing.assert_allclose(read_vectors(data, "train", 6)[5], toy_embed(data / "train_5.wav"))


def test_utterances_without_a_voice_are_named_or_take_the_mean(data):
    def deaf(path):
        return "silence has no speaker" if path.stem == "train_2" else toy_embed(path)

    outcome = make(data, deaf)["train"]
    assert outcome.failed == {"train_2.wav": "silence has no speaker"} and not outcome.joined
    with pytest.raises(FileNotFoundError, match="resynth speakers"):
        read_vectors(data, "train", 6)
    assert make(data, deaf, accept_mean=True)["train"].joined
    means = write_speaker_means(data, ["train", "valid"], DESCRIPTION)
    streams = read_streams(data, speaker_input="vector")
    item = UnitDataset(data, "train", streams, 2560)[2]
    np.testing.assert_allclose(item["speaker"], means["anna"], atol=1e-5)


def test_means_of_a_split_that_was_finished_meanwhile_are_not_lost(data, monkeypatch):
    write_json = speakers.write_json

    def interrupted(path, value):
        monkeypatch.setattr(speakers, "write_json", write_json)
        build_speaker_vectors(data, "train", DESCRIPTION, toy_embed)
        speakers.update_speaker_means(data, DESCRIPTION)  # another job, which is a little faster
        write_json(path, value)

    build_speaker_vectors(data, "valid", DESCRIPTION, toy_embed)
    monkeypatch.setattr(speakers, "write_json", interrupted)
    (data / "valid.speaker").write_text("anna\nanna\n")
    speakers.update_speaker_means(data, DESCRIPTION)
    means = json.loads((data / "speaker_vectors.json").read_text())["means"]
    assert set(means) == {"anna", "boris"}


def test_training_draws_between_the_utterance_and_its_speaker(vectors):
    streams = read_streams(vectors, speaker_input="vector")
    assert (streams.speaker_dim, streams.speakers) == (4, ("anna", "boris"))
    own, mean = toy_embed(vectors / "train_4.wav"), read_vectors(vectors, "train", 6)
    mean = mean_vector(mean[[0, 2, 4]])

    def share_of_means(rate):
        dataset = UnitDataset(vectors, "train", streams, 2560, speaker_mean_rate=rate)
        found = []
        for epoch in range(200):
            dataset.set_epoch(epoch)
            vector = dataset[4]["speaker"].numpy()
            found.append(np.allclose(vector, mean, atol=1e-5))
            assert found[-1] or np.allclose(vector, own, atol=1e-5)
        return np.mean(found)

    assert share_of_means(0) == 0 and share_of_means(1) == 1
    assert 0.35 < share_of_means(0.5) < 0.65


def test_outside_of_training_known_speakers_have_the_mean_and_others_their_own(vectors):
    (vectors / "valid.speaker").write_text("anna\nzoe\n")
    streams = read_streams(vectors, speaker_input="vector")
    dataset = UnitDataset(vectors, "valid", streams)
    batch = dataset.collater([dataset[0], dataset[1]])["net_input"]["speaker"]
    assert batch.shape == (2, 4) and batch.dtype == torch.float32
    np.testing.assert_allclose(batch[1], toy_embed(vectors / "valid_1.wav"))
    assert dataset.speakers.voice(0) == "anna"
    np.testing.assert_allclose(dataset.speakers.voice(1), batch[1])


def test_streams_with_vectors_survive_a_checkpoint(vectors):
    streams = read_streams(vectors, speaker_input="vector")
    assert StreamSpec.from_dict(json.loads(json.dumps(streams.to_dict()))) == streams


def test_vectors_that_do_not_fit_name_what_to_run(vectors):
    streams = read_streams(vectors, speaker_input="vector")
    path = vectors / "speaker_vectors.json"
    path.write_text(path.read_text().replace('"encoder_hash": "1"', '"encoder_hash": "2"'))
    with pytest.raises(ValueError, match="encoder_hash is 2, .* with 1. Run `resynth speakers"):
        UnitDataset(vectors, "train", streams)
    with pytest.raises(ValueError, match="made by toy 1, expected toy 2"):
        write_speaker_means(vectors, ["train"], {**DESCRIPTION, "encoder_hash": "2"})
    path.unlink()
    with pytest.raises(FileNotFoundError, match="resynth speakers"):
        read_streams(vectors, speaker_input="vector")
    with pytest.raises(ValueError, match="expected table or vector"):
        read_streams(vectors, speaker_input="picture")


def test_vectors_as_text():
    vector = np.array([0.123456789, 0, -1e-7], np.float32)
    np.testing.assert_allclose(
        parse_vectors({"a": format_vector(vector)}, 3)["a"], vector, rtol=1e-5
    )
    with pytest.raises(ValueError, match="'a' has 3 numbers, expected 4"):
        parse_vectors({"a": format_vector(vector)}, 4)
    with pytest.raises(ValueError, match="or their mean is 0"):
        mean_vector([vector, -vector])


def test_styles_are_a_table_beside_the_speakers(data):
    (data / "train.style").write_text("\n".join(["whisper", "laughing"] * 3) + "\n")
    (data / "valid.style").write_text("laughing\nshouting\n")
    streams = read_streams(data)
    assert streams.tokens == {"style": ("laughing", "whisper")}
    dataset = UnitDataset(data, "train", streams, 2560)
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["net_input"]["style"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="valid.style:2: style 'shouting' was not trained on"):
        UnitDataset(data, "valid", streams)
    assert read_streams(data, "units,speaker").tokens == {}
