"""Weights and descriptions of encoders: of Hugging Face, of fairseq, in TorchScript and in ONNX."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial, reduce
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from kinds import Kind, saved
from mutations import change_bytes, change_json, change_safetensors, change_zip
from small_corpus import MHUBERT
from tiny_voices import save_toy_encoder

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders import speaker
from fairseq_resynth.encoders.content import build_encoder
from fairseq_resynth.inference.checkpoints import load_content_vqvae, load_f0_quantizer
from fairseq_resynth.modules.architectures import build_vocoder
from fairseq_resynth.modules.quantizers import (
    ContentVqvaeSizes,
    F0Vqvae,
    F0VqvaeSizes,
    build_content_vqvae,
)

WAV = 0.1 * np.random.default_rng(0).standard_normal(3200).astype(np.float32)


def change_settings(keys: str, data: bytes, rng: Random) -> bytes:
    """Settings of a checkpoint are changed as JSON is; `keys` lead to them, as in cfg/model."""
    state = torch.load(io.BytesIO(data), weights_only=False)
    *above, last = keys.split("/")
    holder = reduce(lambda values, key: values[key], above, state)
    try:
        holder[last] = json.loads(change_json(json.dumps(holder[last]).encode(), rng))
    except (ValueError, RecursionError):
        return change_bytes(data, rng)
    return saved(torch.save, state)


def _huggingface(folder: Path, name: str = "HubertModel", **values: Any) -> None:
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, name)
    model(model.config_class(**MHUBERT, **values)).save_pretrained(folder / "in")
    normalizing = {"do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (folder / "in" / "preprocessor_config.json").write_text(json.dumps(normalizing))


def _use_huggingface(path: Path) -> None:
    build_encoder("hf", path.parent, 1).features([torch.from_numpy(WAV)])


def _use_speaker(kind: str, path: Path) -> None:
    speaker.load_encoder.cache_clear()
    speaker.describe_encoder(f"{kind}:{path.parent if kind == 'xvector' else path}")


def _use_fairseq(feature_type: str, path: Path) -> None:
    build_encoder(feature_type, path, 1).features([torch.from_numpy(WAV)])


def _tiny(name: str, folder: Path) -> None:
    import tiny_checkpoints  # which imports fairseq

    options = {} if name == "cpc" else {"layout": "dict"}
    getattr(tiny_checkpoints, f"save_{name}")(folder / "checkpoint.pt", **options)


def _quantizer(sizes: Any, name: str, build: Callable, folder: Path) -> None:
    built = build(sizes)
    weights = {f"{name}.{key}": value for key, value in built.state_dict().items()}
    if name == "content_vqvae":
        vocoder = build_vocoder(sizes, StreamSpec(built.stride, built.num_codes))
        weights |= {f"generator.{k}": v for k, v in vocoder.generator.state_dict().items()}
    state = {"cfg": {"model": {"_name": name, **asdict(sizes)}}, "model": weights}
    torch.save({**state, "extra_state": {}}, folder / "checkpoint.pt")


def _onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = helper.make_tensor("weight", kind, [2, 2], [1.0, 2.0, 3.0, 4.0])
    nodes = [
        helper.make_node("ReduceMax", ["wav"], ["top"], axes=[1], keepdims=1),
        helper.make_node("ReduceMin", ["wav"], ["low"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["top", "low"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weight"], ["vector"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("wav", kind, [1, None])], [value("vector", kind, [1, 2])]
    graph = helper.make_graph(nodes, "toy", *ends, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "toy.onnx"))


SIZES = {"embedding_dim": 8, "upsample_initial_channel": 32, "resblock_kernel_sizes": "3"}
CONTENT = ContentVqvaeSizes(
    **SIZES, resblock_dilation_sizes="1,3", encoder_width=4, num_codes=8, encoder_strides="8,4,5"
)
QUANTIZERS = {
    "content_vqvae": (CONTENT, build_content_vqvae, load_content_vqvae),
    "f0_vqvae": (F0VqvaeSizes(num_codes=4, code_dim=4, width=4), F0Vqvae, load_f0_quantizer),
}
XVECTOR = {"tdnn_dim": [8, 8], "tdnn_kernel": [3, 1], "tdnn_dilation": [1, 1]}
XVECTOR |= {"xvector_output_dim": 8, "classifier_proj_size": 8, "num_labels": 2}
_xvector = partial(_huggingface, name="WavLMForXVector", **XVECTOR)

ENCODERS = {
    "config.json of Hugging Face": Kind(
        _huggingface, "in/config.json", [_use_huggingface], [change_bytes, change_json], 20
    ),
    "weights of Hugging Face": Kind(
        _huggingface,
        "in/model.safetensors",
        [_use_huggingface],
        [change_bytes, change_safetensors, change_safetensors],
        10,
    ),
    "preprocessor_config.json": Kind(
        _huggingface,
        "in/preprocessor_config.json",
        [_use_huggingface],
        [change_bytes, change_json],
        10,
    ),
    "x-vector's config.json": Kind(
        _xvector,
        "in/config.json",
        [partial(_use_speaker, "xvector")],
        [change_bytes, change_json],
        10,
    ),
    "torchscript": Kind(
        lambda folder: save_toy_encoder(folder),
        "toy.pt",
        [partial(_use_speaker, "torchscript")],
        [change_bytes, change_zip],
        20,
    ),
    "onnx": Kind(_onnx, "toy.onnx", [partial(_use_speaker, "onnx")], [change_bytes], 20),
    **{
        f"{name} of fairseq": Kind(
            partial(_tiny, name),
            "checkpoint.pt",
            [partial(_use_fairseq, feature_type)],
            [
                change_bytes,
                change_zip,
                partial(change_settings, keys),
                partial(change_settings, keys),
            ],
            10,
        )
        for name, feature_type, keys in (
            ("hubert", "hubert", "cfg/model"),
            ("wav2vec2", "w2v2", "cfg/model"),
            ("cpc", "cpc", "config"),
        )
    },
    **{
        f"{name} checkpoint": Kind(
            partial(_quantizer, sizes, name, build),
            "checkpoint.pt",
            [load],
            [change_bytes, change_zip, partial(change_settings, "cfg/model")],
            20,
        )
        for name, (sizes, build, load) in QUANTIZERS.items()
    },
}
