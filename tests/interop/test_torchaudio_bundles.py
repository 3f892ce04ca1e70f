"""Torchaudio's bundles with weights from a file; the architectures are made tiny first."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio
from torchaudio import pipelines

from fairseq_resynth.interop.content_encoder import build_encoder

TINY = {
    "encoder_num_layers": 3,
    "encoder_embed_dim": 16,
    "encoder_ff_interm_features": 32,
    "encoder_num_heads": 2,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "extractor_conv_layer_config": [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
}
BUNDLES = ("HUBERT_BASE", "HUBERT_LARGE", "WAVLM_BASE", "WAV2VEC2_ASR_BASE_960H")


@pytest.fixture(params=BUNDLES)
def saved(request, tmp_path, monkeypatch):
    bundle = getattr(pipelines, request.param)
    bundle = dataclasses.replace(bundle, _params={**bundle._params, **TINY})
    monkeypatch.setattr(pipelines, request.param, bundle)
    torch.manual_seed(0)
    is_wavlm = bundle._model_type == "WavLM"
    make = torchaudio.models.wavlm_model if is_wavlm else torchaudio.models.wav2vec2_model
    model = make(**bundle._params).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return request.param, tmp_path / "weights.pth", model, bundle._normalize_waveform


def test_features_equal_torchaudios(saved):
    name, path, model, normalize = saved
    encoder = build_encoder("torchaudio", path, 2, bundle=name)
    generator = np.random.default_rng(0)
    wavs = [
        torch.from_numpy(generator.normal(0, 0.1, n).astype(np.float32)) for n in (9000, 6400, 401)
    ]
    for wav, batched in zip(wavs, encoder.features(wavs), strict=True):
        source = F.layer_norm(wav, wav.shape) if normalize else wav
        with torch.inference_mode():
            expected = model.extract_features(source[None], num_layers=2)[0][1][0]
        torch.testing.assert_close(encoder.features([wav])[0], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(batched, expected, atol=5e-6, rtol=0)
    assert encoder.description()["bundle"] == name


def test_mistakes_are_one_sentence(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="--feature-type torchaudio needs --bundle"):
        build_encoder("torchaudio", tmp_path / "weights.pth", 1)
    with pytest.raises(
        ValueError, match="--bundle is 'HUBERT', expected one of HUBERT_ASR_LARGE, "
    ):
        build_encoder("torchaudio", tmp_path / "weights.pth", 1, bundle="HUBERT")
    with pytest.raises(
        ValueError, match="not readable as the weights of torchaudio.s HUBERT_BASE: .*issing"
    ):
        build_encoder("torchaudio", tmp_path / "weights.pth", 1, bundle="HUBERT_BASE")
