"""Speaker encoders: Resemblyzer knows voices, files of one's own work, and what is wrong is said."""

import numpy as np
import pytest
import torch
from tiny_voices import ENGLISH, RUSSIAN, SPEECH, save_toy_encoder

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio import load_any_audio
from fairseq_resynth.interop.speaker_encoder import (
    describe_encoder,
    embed_file,
    load_encoder,
    parse_encoder,
)


def test_resemblyzer_finds_the_same_voice_nearer():
    pytest.importorskip("resemblyzer")
    paths = [ENGLISH, SPEECH / "english" / "status.flac", RUSSIAN]
    one, same, other = (embed_file(path, "resemblyzer") for path in paths)
    assert one.shape == (256,) and np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ same > one @ other + 0.05
    assert describe_encoder("resemblyzer")["speaker_dim"] == 256
    with pytest.raises(ValueError, match="silence has no speaker"):
        load_encoder("resemblyzer").embed(np.zeros(32000, np.float32))


def test_a_torchscript_file_is_an_encoder(tmp_path, capsys):
    encoder = save_toy_encoder(tmp_path)
    description = describe_encoder(encoder)
    assert description["speaker_dim"] == 16 and len(description["encoder_hash"]) == 16
    wav = load_any_audio(ENGLISH)[0]
    assert np.linalg.norm(load_encoder(encoder).embed(wav)) == pytest.approx(1, abs=1e-5)
    data = tmp_path / "data"
    folder = tmp_path / "speech" / "anna"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((SPEECH / "french").glob("*.flac"))[:4]):
        (folder / f"{number}.flac").write_bytes(path.read_bytes())
    options = "--speaker-from parent --valid-percent 25 --test-percent 0".split()
    assert main(["manifest", str(folder.parent), "--outdir", str(data), *options]) == 0
    assert main(["speakers", str(data), "--encoder", encoder, "--workers", "1"]) == 0
    assert "speaker_vectors.json: 1 speakers" in capsys.readouterr().out
    vectors = np.load(data / "train.speaker_vectors.npy")
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_an_onnx_file_is_an_encoder(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("ReduceMax", ["wav"], ["top"], axes=[1], keepdims=1),
        onnx.helper.make_node("ReduceMin", ["wav"], ["low"], axes=[1], keepdims=1),
        onnx.helper.make_node("Concat", ["top", "low"], ["vector"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [value("wav", onnx.TensorProto.FLOAT, [1, None])],
        [value("vector", onnx.TensorProto.FLOAT, [1, 2])],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, str(tmp_path / "toy.onnx"))
    wav = np.array([0.3, -0.4, 0.1], np.float32)
    vector = load_encoder(f"onnx:{tmp_path / 'toy.onnx'}").embed(wav)
    np.testing.assert_allclose(vector, [0.6, -0.8], rtol=1e-6)


def test_what_is_no_encoder_is_said(tmp_path):
    for text in ("resemblyzer:x", "xvector", "pickle:a.pkl"):
        with pytest.raises(ValueError, match="expected resemblyzer, xvector:"):
            parse_encoder(text)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_encoder("onnx:/nowhere.onnx")
    (tmp_path / "bad.pt").write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_encoder(f"torchscript:{tmp_path / 'bad.pt'}")

    class Flat(torch.nn.Module):
        def forward(self, wav: torch.Tensor) -> torch.Tensor:
            return wav.sum()[None]

    torch.jit.script(Flat()).save(str(tmp_path / "flat.pt"))
    with pytest.raises(ValueError, match=r"gave \(1,\), expected \(1, D\)"):
        load_encoder(f"torchscript:{tmp_path / 'flat.pt'}").embed(np.ones(100, np.float32))
