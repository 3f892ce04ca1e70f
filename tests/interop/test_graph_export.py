"""Graphs for onnxruntime, TorchScript and torch.export: the model's own output at any length."""

import json

import numpy as np
import pytest
import torch
from tiny_bundles import tiny_sizes, write_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.interop.graph_export import export_graph
from fairseq_resynth.modules.architectures import build_vocoder, sizes_class

KINDS = ["units", "units, pitch, speaker", "units, raw pitch", "units, speaker vector"]


def inputs(streams, units, seed=0):
    """(arguments of our decode, arrays in the graph's order) for (B, U) units."""
    rng = np.random.default_rng(seed)
    batch, count = units.shape
    ours, arrays = {"units": units}, [units]
    if streams.num_f0_codes:
        ours["f0_codes"] = rng.integers(streams.num_f0_codes, size=(batch, -(-count // 4) + 1))
        arrays.append(ours["f0_codes"])
    if streams.f0_channels:
        ours["f0"] = rng.standard_normal((batch, 1, 4 * count)).astype(np.float32)
        arrays.append(ours["f0"])
    if streams.speakers:
        ours["speaker"] = [index % 2 for index in range(batch)]
        arrays.append(np.array(ours["speaker"]))
    if streams.speaker_dim:
        ours["speaker"] = rng.standard_normal((batch, streams.speaker_dim)).astype(np.float32)
        arrays.append(ours["speaker"])
    return ours, arrays


def export(kind, to, tmp_path):
    system = write_bundle(kind, tmp_path / "bundle")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "bundle"), "--to", to, "--outdir", str(out)]) == 0
    return system, out


def check(system, run, tolerance):
    for shape in ((1, 5), (3, 37)):
        units = np.random.default_rng(1).integers(system.streams.num_units, size=shape)
        ours, arrays = inputs(system.streams, units)
        np.testing.assert_allclose(run(arrays), system.decode(**ours), atol=tolerance)


@pytest.mark.parametrize("kind", [KINDS[1], pytest.param(KINDS[2], marks=pytest.mark.slow)])
def test_onnx(kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    system, out = export(kind, "onnx", tmp_path)
    session = runtime.InferenceSession(out / "generator.onnx")
    names = [one.name for one in session.get_inputs()]
    assert names == json.loads((out / "graph.json").read_text())["inputs"]
    check(system, lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0], 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript(kind, tmp_path):
    system, out = export(kind, "torchscript", tmp_path)
    graph = torch.jit.load(out / "generator.pt")
    check(system, lambda arrays: graph(*map(torch.from_numpy, arrays)).numpy(), 1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "arch,hops",
    [("unit_vocos", (480, 320)), ("unit_source_filter", (1280, 640))],
)
def test_torchscript_at_other_rates(arch, hops, tmp_path):
    streams, sizes = StreamSpec(hops[0], 10, hops[1], 5), tiny_sizes(arch)
    model = build_vocoder(sizes, streams).eval()
    export_graph(Bundle(model, sizes, streams), tmp_path, "torchscript")
    graph = torch.jit.load(tmp_path / "generator.pt")
    units, f0_codes = torch.randint(10, (2, 23)), torch.randint(5, (2, 60))
    expected = model(units, f0_codes)
    assert expected.shape == (2, 1, 23 * hops[0])
    torch.testing.assert_close(graph(units, f0_codes), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS[1:2])
def test_torch_export(kind, tmp_path):
    system, out = export(kind, "torch-export", tmp_path)
    graph = torch.export.load(out / "generator.pt2").module()
    check(system, lambda arrays: graph(*map(torch.from_numpy, arrays)).detach().numpy(), 1e-4)


def test_durations_in_onnx(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    system, out = export("units, durations", "onnx", tmp_path)
    session = runtime.InferenceSession(out / "durations.onnx")
    for units in (np.array([3, 1, 9]), np.arange(20) % 7):
        counts = session.run(None, {"units": units[None]})[0][0]
        expanded = system.decoder.expand([units])[0]
        assert np.repeat(units, counts).tolist() == expanded.tolist()


@pytest.mark.parametrize("to", ["onnx", pytest.param("torch-export", marks=pytest.mark.slow)])
def test_pulses_and_noise_are_in_the_graph(to, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    streams = StreamSpec(320, 10, num_f0_codes=5, speakers=("anna", "boris"))
    sizes = {"embedding_dim": 16, "dim": 32, "intermediate_dim": 32, "num_layers": 1}
    cfg = sizes_class("unit_source_filter")(**sizes)
    bundle = Bundle(build_vocoder(cfg, streams), cfg, streams)
    name = export_graph(bundle, tmp_path, to)[0]
    arrays = [np.arange(74).reshape(2, 37) % 10, np.arange(22).reshape(2, 11) % 5, np.arange(2)]
    wanted = bundle.generator(*map(torch.from_numpy, arrays)).detach().numpy()
    if to == "onnx":
        session = runtime.InferenceSession(tmp_path / name)
        names = [one.name for one in session.get_inputs()]
        found = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    else:
        program = torch.export.load(tmp_path / name).module()
        found = program(*map(torch.from_numpy, arrays)).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_durations_of_a_speaker_in_torchscript(tmp_path):
    system, out = export("units, speaker, own rhythm", "torchscript", tmp_path)
    description = json.loads((out / "graph.json").read_text())
    assert description["duration_inputs"] == ["units", "speaker"]
    graph, units = torch.jit.load(out / "durations.pt"), np.arange(20) % 7
    for index, name in enumerate(system.streams.speakers):
        counts = graph(torch.from_numpy(units)[None], torch.tensor([index]))[0].numpy()
        expanded = system.decoder.expand([units], speaker=name)[0]
        assert np.repeat(units, counts).tolist() == expanded.tolist()
