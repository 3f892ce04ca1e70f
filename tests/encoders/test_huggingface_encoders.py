"""Encoders of transformers, from folders of tiny random models, against the models' own forward."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.manifest import write_manifest
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.encoders.content import ContentEncoder, build_encoder

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
KINDS = {
    "hubert": ("Hubert", {}),
    "hubert-large": ("Hubert", LARGE),
    "wav2vec2": ("Wav2Vec2", {}),
    "wavlm": ("WavLM", {}),
    "wavlm-large": ("WavLM", LARGE),
    "data2vec": ("Data2VecAudio", {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}),
}


def _wavs():
    generator = np.random.default_rng(0)
    noise = [np.cumsum(generator.normal(0, 0.02, n)) % 1 - 0.5 for n in (16000, 12800, 9001)]
    return [torch.from_numpy(wav.astype(np.float32)) for wav in noise]


def _save(folder, kind):
    name, changes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SMALL | changes))
    model = getattr(transformers, f"{name}Model")(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [1, 2])
def test_features_equal_the_models_hidden_states(kind, layer, tmp_path):
    model, wavs = _save(tmp_path, kind), _wavs()
    encoder = build_encoder("hf", tmp_path, layer)
    assert (encoder.unit_hop, encoder.min_samples) == (320, 400)
    for wav, batched in zip(wavs, encoder.features(wavs), strict=True):
        source = F.layer_norm(wav, wav.shape) if kind.endswith("large") else wav
        with torch.inference_mode():
            expected = model(source[None], output_hidden_states=True).hidden_states[layer][0]
        alone = encoder.features([wav])[0]
        torch.testing.assert_close(alone, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(batched, alone, atol=5e-6, rtol=0)
        assert len(alone) == encoder.num_frames(len(wav))


def test_the_folder_says_whether_waveforms_are_normalized(tmp_path):
    _save(tmp_path, "hubert")
    wav = _wavs()[0]
    plain = build_encoder("hf", tmp_path, 2).features([wav])[0]
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    encoder = build_encoder("hf", tmp_path, 2)
    assert encoder.normalize
    normalized = encoder.features([wav])[0]
    torch.testing.assert_close(encoder.features([wav * 0.3])[0], normalized, atol=1e-3, rtol=0)
    assert not torch.allclose(plain, normalized, atol=1e-3)


def test_overwriting_the_weights_does_not_end_the_process_that_uses_them(tmp_path):
    """Weights that stay mapped from a file crash whoever reads them after the file was made shorter."""
    _save(tmp_path, "hubert")
    encoder = build_encoder("hf", tmp_path, 2)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    before = encoder.features(_wavs()[:1])[0]
    (tmp_path / "model.safetensors").write_bytes(b"")
    torch.testing.assert_close(encoder.features(_wavs()[:1])[0], before, atol=0, rtol=0)


def test_long_files_lose_no_frame(tmp_path):
    from fairseq_resynth.encoders.huggingface import HuggingFaceEncoder

    wav = torch.cat(_wavs())
    whole = build_encoder("hf", _folder(tmp_path, "wavlm-large"), 2).features([wav])[0]
    model = transformers.AutoModel.from_pretrained(tmp_path)
    cut = HuggingFaceEncoder(model, tmp_path, 2, max_chunk=10000, context=3200).features([wav])[0]
    assert len(cut) == len(whole)
    assert F.cosine_similarity(cut, whole).mean() > 0.9


def _folder(folder, kind):
    _save(folder, kind)
    return folder


def _save_whisper(folder, positions=1500):
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=60,
        max_source_positions=positions,
        **dict.fromkeys(
            ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1
        ),
    )
    model = transformers.WhisperModel(config).eval()
    model.save_pretrained(folder)
    return model


def test_a_negative_number_of_heads_is_refused(tmp_path):
    _save_whisper(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "encoder_attention_heads": -2}))
    with pytest.raises(ValueError, match="encoder_attention_heads is -2, expected 1 or more"):
        build_encoder("hf", tmp_path, 1)


def test_whisper_equals_its_own_encoder_on_a_full_window(tmp_path):
    """Two seconds and a model of two seconds: nothing is padded, so the model's own forward is right."""
    model = _save_whisper(tmp_path, positions=100)
    wav = torch.cat(_wavs())[:32000]
    mel = transformers.WhisperFeatureExtractor(chunk_length=2)(wav.numpy(), sampling_rate=16000)
    features = torch.tensor(np.array(mel["input_features"]))
    with torch.inference_mode():
        expected = model.encoder(features, output_hidden_states=True).hidden_states[2][0]
    found = build_encoder("hf", tmp_path, 2).features([wav])[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [400, 559, 560, 640, 12800, 32001, 36805])
def test_whisper_frame_counts(samples, tmp_path):
    _save_whisper(tmp_path, positions=60)  # 1.2 s: the longer ones are chunked
    from fairseq_resynth.encoders.huggingface import WhisperEncoder

    model = transformers.AutoModel.from_pretrained(tmp_path).encoder
    encoder = WhisperEncoder(model, tmp_path, 2, context=10)
    found = encoder.features([torch.cat(_wavs())[:samples]])[0]
    assert len(found) == encoder.num_frames(samples) == -(-(samples // 160) // 2)


def test_a_batch_of_whisper_equals_its_files_alone(tmp_path):
    """Even and odd numbers of mel frames, and one file longer than the window."""
    from fairseq_resynth.encoders.huggingface import WhisperEncoder

    _save_whisper(tmp_path, positions=60)
    model = transformers.AutoModel.from_pretrained(tmp_path).encoder
    encoder, wav = WhisperEncoder(model, tmp_path, 2, context=10), torch.cat(_wavs())
    wavs = [wav[:samples] for samples in (16000, 400, 9001, 32001, 15999, 12640, 12800)]
    wavs.append(torch.zeros(9001))
    wavs[-1][-30:] = wav[:30]  # the last frame, which Whisper leaves out, is the loudest
    for own, batched in zip(wavs, encoder.features(wavs), strict=True):
        torch.testing.assert_close(batched, encoder.features([own])[0], atol=1e-5, rtol=0)


def test_networks_that_padding_would_change_batch_equal_lengths(tmp_path):
    encoder, (wav, *_) = build_encoder("hf", _folder(tmp_path, "data2vec"), 2), _wavs()
    wavs = [wav[:9000], wav, wav[7000:], wav[100:9100]]
    sizes = []
    encoder.model.feature_extractor.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0]))
    )
    batched = encoder.features(wavs)
    assert sizes == [3, 1]
    for own, found in zip(wavs, batched, strict=True):
        torch.testing.assert_close(found, encoder.features([own])[0], atol=5e-6, rtol=0)


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_kmeans_and_quantize(kind, tmp_path, capsys):
    folder = tmp_path / "model"
    (_save_whisper if kind == "whisper" else lambda f: _save(f, kind))(folder)
    for index, wav in enumerate(_wavs()):
        soundfile.write(tmp_path / f"{index}.wav", wav.numpy(), 16000)
    rows = [(f"{index}.wav", len(wav)) for index, wav in enumerate(_wavs())]
    write_manifest(tmp_path / "train.tsv", tmp_path, rows)
    km, checkpoint = str(tmp_path / "km.safetensors"), ["--content-checkpoint", str(folder)]
    fit = ["kmeans", str(tmp_path), "--feature-type", "hf", *checkpoint, "--layer", "2"]
    assert main([*fit, "--num-clusters", "4", "--out", km]) == 0
    assert main(["quantize", str(tmp_path), "--kmeans", km, *checkpoint]) == 0
    found = read_json(tmp_path / "units.json")
    assert (found["feature_type"], found["checkpoint"], found["unit_hop"]) == ("hf", "model", 320)
    first = [int(unit) for unit in (tmp_path / "train.units").read_text().split("\n")[0].split()]
    assert ContentEncoder.from_kmeans(km, folder).encode(_wavs()[0]).tolist() == first
    assert len(first) == (50 if kind == "whisper" else 49)


def test_mistakes_are_one_sentence(tmp_path):
    _save(tmp_path, "hubert")
    with pytest.raises(ValueError, match="--layer is 4, .* has layers 1 to 3"):
        build_encoder("hf", tmp_path, 4)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="empty cannot be loaded as a model of transformers"):
        build_encoder("hf", empty, 1)
    (empty / "config.json").write_text(json.dumps({"model_type": "hubert", **SMALL}))
    torch.save({"evil": torch.nn.Linear}, empty / "pytorch_model.bin")
    with pytest.raises(ValueError, match="empty cannot be loaded as a model of transformers"):
        build_encoder("hf", empty, 1)
    bert = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(
        ValueError, match="bert is a bert model, expected one that encodes waveforms"
    ):
        build_encoder("hf", tmp_path / "bert", 1)


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    """transformers only logs it, and the units would be noise."""
    model = _save(tmp_path, "hubert")
    state = model.state_dict()
    del state["encoder.layers.0.attention.k_proj.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        ValueError, match="its weights lack encoder.layers.0.attention.k_proj.weight"
    ):
        build_encoder("hf", tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 10+, expected up to 1000"),
        ("config", {"conv_stride": [5, 2, 2, 2, 2, 2, 10**20]}, "its convolutions step by"),
        (
            "config",
            {"auto_map": {"AutoModel": "evil.Evil"}, "model_type": "evil"},
            "cannot be loaded",
        ),
        (
            "preprocessor_config",
            {"do_normalize": [1]},
            "do_normalize is .1., expected true or false",
        ),
        (
            "preprocessor_config",
            {"feature_extractor_type": [1]},
            "preprocessor_config.json is damaged",
        ),
    ],
)
def test_damaged_descriptions(tmp_path, name, changes, complaint):
    _save(tmp_path, "hubert")
    kept = {"do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(kept))
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=complaint) as raised:
        build_encoder("hf", tmp_path, 1)
    assert len(str(raised.value).splitlines()) == 1
