"""Speaker encoders: Resemblyzer knows voices, files of one's own work, and what is wrong is said."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from small_corpus import write_data
from tiny_voices import ENGLISH, RUSSIAN, SPEECH, save_toy_encoder

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.encoders import speaker
from fairseq_resynth.encoders.speaker import (
    describe_encoder,
    embed_file,
    filter_banks,
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


def test_speakers_embed_on_the_device(tmp_path, monkeypatch):
    encoder, devices = save_toy_encoder(tmp_path), []
    load = speaker.load_encoder

    def noted(text, device="cpu"):
        devices.append(device)
        return load(text, device)

    monkeypatch.setattr(speaker, "load_encoder", noted)
    data = write_data(tmp_path / "data", {"train": [8000] * 2})
    command = ["speakers", str(data), "--encoder", encoder, "--workers", "1", "--device"]
    assert main([*command, "cpu:0"]) == 0
    assert len(devices) == 3 and set(devices) == {"cpu:0"}  # what describes it, and two files


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_does_not_exist_is_one_sentence(tmp_path, capsys):
    data = write_data(tmp_path / "data", {"train": [8000]})
    assert main(["speakers", str(data), "--device", "cuda"]) == 2
    assert "--device cuda cannot be used here" in capsys.readouterr().err
    pytest.importorskip("onnxruntime")
    path = save_onnx(tmp_path / "toy.onnx", [1, None], 2)
    with pytest.raises(ValueError, match="cannot use cuda: pip install onnxruntime-gpu"):
        load_encoder(f"onnx:{path}", "cuda")


def save_onnx(path, heard, size):
    """Largest and smallest value over the axis of time."""
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    keep = 1 if len(heard) == 2 else 0
    nodes = [
        onnx.helper.make_node("ReduceMax", ["wav"], ["top"], axes=[1], keepdims=keep),
        onnx.helper.make_node("ReduceMin", ["wav"], ["low"], axes=[1], keepdims=keep),
        onnx.helper.make_node("Concat", ["top", "low"], ["vector"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [value("wav", onnx.TensorProto.FLOAT, heard)],
        [value("vector", onnx.TensorProto.FLOAT, [1, size])],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


def test_an_onnx_file_is_an_encoder(tmp_path):
    pytest.importorskip("onnxruntime")
    path = save_onnx(tmp_path / "toy.onnx", [1, None], 2)
    vector = load_encoder(f"onnx:{path}").embed(np.array([0.3, -0.4, 0.1], np.float32))
    np.testing.assert_allclose(vector, [0.6, -0.8], rtol=1e-6)
    assert describe_encoder(f"onnx:{path}")["speaker_dim"] == 2


class Banks(torch.nn.Module):
    def forward(self, banks: torch.Tensor) -> torch.Tensor:
        return banks.amax(1)


def test_encoders_on_filter_banks(tmp_path):
    pytest.importorskip("onnxruntime")
    time = np.arange(32000) / 16000
    wav = (0.1 * np.sin(2 * np.pi * 1000 * time) * (time > 1)).astype(np.float32)
    banks = filter_banks(wav)
    assert banks.shape == (1, 198, 80) and np.abs(banks.mean(1)).max() < 1e-3
    loudest = int((banks[0, 150] - banks[0, 10]).argmax())
    centers = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 82)[1:-1]
    assert abs(700 * np.expm1(centers[loudest] / 1127) - 1000) < 50
    onnx = f"onnx-fbank:{save_onnx(tmp_path / 'toy.onnx', [1, None, 80], 160)}"
    torch.jit.script(Banks()).save(str(tmp_path / "toy.pt"))
    script = f"torchscript-fbank:{tmp_path / 'toy.pt'}"
    assert describe_encoder(onnx)["speaker_dim"] == 160
    assert describe_encoder(script)["speaker_dim"] == 80
    expected = banks[0].max(0) / np.linalg.norm(banks[0].max(0))
    np.testing.assert_allclose(load_encoder(script).embed(wav), expected, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"does not take samples \(1, T\): .*write .*onnx-fbank:FILE"
    ):
        describe_encoder(onnx.replace("onnx-fbank", "onnx"))
    with pytest.raises(ValueError, match="0.006 s are too short for a frame"):
        load_encoder(script).embed(wav[-100:])


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


def test_damaged_encoders_are_one_line_and_never_reach_torch(tmp_path, monkeypatch):
    """torch's C++ reads TorchScript without looking at the checksums of its members."""
    name = save_toy_encoder(tmp_path)
    path = tmp_path / "toy.pt"
    valid = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        content = archive.read("toy/data.pkl")
    place = valid.index(content) + 9
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch has read it"))
    for content in (valid[:place] + b"???" + valid[place + 3 :], valid[:900], b"", b"x\n\ny" * 99):
        load_encoder.cache_clear()
        path.write_bytes(content)
        with pytest.raises(ValueError, match="toy.pt: cannot be loaded") as raised:
            load_encoder(name)
        assert len(str(raised.value).splitlines()) == 1


def test_errors_of_encoders_are_reasons_of_one_line(tmp_path, monkeypatch):
    def fail(wav):
        raise RuntimeError("Traceback of TorchScript:\n  first\n  second\n")

    wav = tmp_path / "a.wav"
    soundfile.write(wav, np.zeros(800), 16000)
    encoder = SimpleNamespace(embed=fail)
    monkeypatch.setattr(speaker, "load_encoder", lambda *_: encoder)
    assert embed_file(wav, "torchscript:x") == "Traceback of TorchScript: first second"
