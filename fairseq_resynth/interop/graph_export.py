"""A unit vocoder as one graph, for onnxruntime, torch.export and TorchScript."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_resynth.constants import F0_HOP, TOKENS
from fairseq_resynth.data.storage.files import atomic_path, require_written, write_json
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.modules.duration_predictor import expand_counts
from fairseq_resynth.modules.unit_generator import UnitGenerator

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".pt"}
EXAMPLE_UNITS = 16  # length of the example that a graph is traced with; the graph takes any other


class FlatGenerator(nn.Module):
    """`UnitGenerator` with its streams in the order of `names` and without checks, as a graph needs it.

    Its weight norm must be folded into its weights; `names` are keys of `_examples`.
    """

    def __init__(self, unit_generator: UnitGenerator, names: list[str]):
        super().__init__()
        self.unit_generator = unit_generator
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Generates (B, 1, T) from the streams that `names` lists, all rows of the same length."""
        given = dict(zip(self.names, inputs, strict=True))
        model = self.unit_generator
        units = given["units"]
        frame = torch.arange(units.size(1) * model.unit_repeats, device=units.device)
        embedded = model.unit_embedding(units).transpose(1, 2)
        # Frames are taken by index, because slices would tie the lengths of the inputs to each other.
        frames = [embedded.index_select(2, frame // model.unit_repeats)]
        if "f0_codes" in given:
            pitch = model.f0_code_embedding(given["f0_codes"]).transpose(1, 2)
            frames.append(pitch.index_select(2, frame // model.f0_repeats))
        if "f0" in given:
            frames.append(given["f0"].index_select(2, frame // model.f0_repeats))
        for name in ("speaker", *TOKENS):
            if name in given:
                held = getattr(model, f"{name}_embedding")(given[name])[:, :, None]
                frames.append(held.expand(-1, -1, embedded.size(2) * model.unit_repeats))
        return model.generator(torch.cat(frames, dim=1))


class FlatDurations(nn.Module):
    """Turns (B, U) collapsed units, with the speaker if the model needs it, into (B, U) int64 repeats."""

    def __init__(self, unit_generator: UnitGenerator):
        super().__init__()
        self.unit_generator = unit_generator

    def forward(self, units: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Predicts the repeats at the normal rate of speaking."""
        return expand_counts(self.unit_generator.log_durations(units, speaker=speaker))


def _examples(streams: StreamSpec) -> dict[str, Tensor]:
    """An example of each input of a model's graph by name, in their order; two rows."""
    samples = EXAMPLE_UNITS * streams.unit_hop
    found = {"units": torch.arange(2 * EXAMPLE_UNITS).view(2, -1) % streams.num_units}
    if streams.num_f0_codes:
        length = -(-samples // streams.f0_code_hop) + 1
        found["f0_codes"] = torch.zeros(2, length, dtype=torch.int64)
    if streams.f0_channels:
        found["f0"] = torch.zeros(2, streams.f0_channels, -(-samples // F0_HOP) + 3)
    if streams.speaker_dim:
        found["speaker"] = torch.zeros(2, streams.speaker_dim)
    elif streams.speakers:
        found["speaker"] = torch.zeros(2, dtype=torch.int64)
    return {**found, **{token: torch.zeros(2, dtype=torch.int64) for token in streams.tokens}}


_DYNAMIC_AXES = {"units": (0, 1), "f0_codes": (0, 1), "f0": (0, 2)}  # of others: 0, the rows


def export_graph(bundle: Bundle, outdir: str | Path, kind: str) -> list[str]:
    """Writes `generator.SUFFIX`, `durations.SUFFIX` for a model that predicts them, and `graph.json`.

    `kind` is `onnx`, `torchscript` or `torch-export`; raises ValueError if its packages are not installed.
    Returns the names of the files.
    """
    outdir, streams, suffix = Path(outdir), bundle.streams, SUFFIXES[kind]
    bundle.generator.generator.remove_weight_norm()
    generator = bundle.generator.eval()
    examples, duration_names = _examples(streams), None
    names = list(examples)
    graphs = [(f"generator{suffix}", FlatGenerator(generator, names), names, "wav")]
    if generator.duration_predictor is not None:
        duration_names = ["units", "speaker"] if generator.durations_need_speaker else ["units"]
        durations = FlatDurations(generator)
        graphs.append((f"durations{suffix}", durations, duration_names, "counts"))
    for file, module, inputs, output in graphs:
        example = {name: examples[name] for name in inputs}
        with atomic_path(outdir / file) as temporary, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            _write(kind, module.eval(), example, output, temporary)
    files = [file for file, *_ in graphs]
    description = {
        "files": files,
        "inputs": names,
        "duration_inputs": duration_names,
        "sample_rate": streams.sample_rate,
        "unit_hop": streams.unit_hop,
        "f0_code_hop": streams.f0_code_hop if streams.num_f0_codes else None,
        "num_units": streams.num_units,
        "speakers": list(streams.speakers),
        **{f"{token}s": list(streams.tokens.get(token, ())) for token in TOKENS},
        "identity": bundle.identity,
    }
    write_json(outdir / "graph.json", description)
    require_written(*(outdir / file for file in files))
    return [*files, "graph.json"]


def _write(
    kind: str, module: nn.Module, example: dict[str, Tensor], output: str, path: Path
) -> None:
    """Writes a graph whose inputs are named and shaped as in `example`, with any number and length."""
    tensors = tuple(example.values())
    shapes: tuple[Any, ...] = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis in _DYNAMIC_AXES.get(name, (0,))}
        for name in example
    )
    if isinstance(module, FlatGenerator):
        shapes = (shapes,)  # its inputs are one *inputs
    if kind == "torchscript":
        traced = torch.jit.trace(module, tensors, check_trace=False)
        extra = {"inputs.json": json.dumps(list(example))}
        with path.open("wb") as stream:  # given a path, torch stores the temporary name
            torch.jit.save(torch.jit.freeze(traced), stream, _extra_files=extra)
        return
    if kind == "torch-export":
        with path.open("wb") as stream:
            torch.export.save(torch.export.export(module, tensors, dynamic_shapes=shapes), stream)
        return
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--to onnx needs {error.name}: pip install 'fairseq_resynth[onnx]'"
        ) from error
    # The exporter warns of each operator of packages that are not installed.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        tensors,
        input_names=list(example),
        output_names=[output],
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    program.save(str(path), external_data=False)
