"""Chunks, batches and GSLM's log-mel features."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained.logmel_feature_reader import (
    LogMelFeatureReader,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_resynth.constants import FEATURE_TYPES, FeatureType
from fairseq_resynth.encoders.content import build_encoder
from fairseq_resynth.encoders.frames import LogMelEncoder, plan_batches, plan_chunks, read_speech


@settings(deadline=None)
@given(frames=st.integers(1, 500), window=st.integers(3, 60), data=st.data())
def test_chunks_keep_each_frame_once_and_with_context(frames, window, data):
    context = data.draw(st.integers(0, (window - 1) // 2))
    chunks = list(plan_chunks(frames, window, context))
    kept = [frame for c in chunks for frame in range(c.keep_start, c.keep_stop)]
    assert kept == list(range(frames))
    for chunk in chunks:
        assert chunk.stop - chunk.start <= window
        assert chunk.start == 0 or chunk.keep_start - chunk.start >= context
        assert chunk.stop == frames or chunk.stop - chunk.keep_stop >= context
        assert range(chunk.start, chunk.stop)[chunk.kept] == range(
            chunk.keep_start, chunk.keep_stop
        )


def test_chunks_need_room_beside_their_context():
    with pytest.raises(ValueError, match="window is 6 frames, expected more than twice 3"):
        list(plan_chunks(10, 6, 3))


def test_batches_hold_rows_of_similar_length_within_the_budget():
    lengths = [50, 10, 40, 10, 300, 12]
    assert list(plan_batches(lengths, [0, 1, 2, 3, 4, 5], 100)) == [[1, 3, 5], [2, 0], [4]]
    assert list(plan_batches(lengths, [0, 1, 2], 0)) == [[1], [2], [0]]


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16123), 16000)
    return path


def test_log_mel_equals_gslms_reader(noise):
    encoder = LogMelEncoder()
    wav = read_speech(noise, encoder.min_samples)
    found = encoder.features([wav])[0]
    assert torch.equal(found, LogMelFeatureReader().get_feats(noise))
    assert len(found) == encoder.num_frames(len(wav)) == 99


def test_log_mel_does_not_depend_on_chunks(noise):
    wav = read_speech(noise, 400)
    whole, cut = (
        LogMelEncoder().features([wav])[0],
        LogMelEncoder(chunk_frames=7).features([wav])[0],
    )
    torch.testing.assert_close(whole, cut, atol=1e-5, rtol=0)


def test_a_batch_of_log_mel_equals_its_files_alone(noise):
    wav, encoder = read_speech(noise, 400), LogMelEncoder(chunk_frames=90)
    wavs = [wav[:400], wav[:4321], wav[:401], wav, wav[:1600], wav[100:9000]]
    for own, batched in zip(wavs, encoder.features(wavs), strict=True):
        torch.testing.assert_close(batched, encoder.features([own])[0], atol=1e-5, rtol=0)


def test_unusable_files_are_named(tmp_path):
    short, silent = tmp_path / "short.wav", tmp_path / "silent.wav"
    soundfile.write(short, np.array([0.1, 0.2, 0.1]), 16000)
    soundfile.write(silent, np.zeros(8000), 16000)
    with pytest.raises(
        ValueError, match="short.wav: 3 samples are too short for a frame, expected 400"
    ):
        read_speech(short, 400)
    with pytest.raises(ValueError, match="silent.wav is silent: every sample is 0"):
        read_speech(silent, 400)
    with pytest.raises(FileNotFoundError, match="none.wav does not exist"):
        read_speech(tmp_path / "none.wav", 400)


def test_an_encoder_without_weights_needs_one_entry_of_the_registry(noise, monkeypatch):
    class Energy(LogMelEncoder):
        feature_type = "energy"

    monkeypatch.setitem(sys.modules, "fairseq_resynth.encoders.energy", SimpleNamespace(E=Energy))
    monkeypatch.setitem(FEATURE_TYPES, "energy", FeatureType("energy:E", has_weights=False))
    wav = read_speech(noise, 400)
    assert torch.equal(
        build_encoder("energy").features([wav])[0], LogMelEncoder().features([wav])[0]
    )
    with pytest.raises(ValueError, match="energy has no weights: leave out --content-checkpoint"):
        build_encoder("energy", layer=2)
