"""Checkpoints in the published layouts, made of random weights, small."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.interop.weight_names import published_name
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONFIG = {
    "resblock": "1",
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "num_embeddings": 10,
    "embedding_dim": 8,
    "model_in_dim": 8,
    "code_hop_size": 320,
    "sampling_rate": 16000,
    "f0": False,
}
FRAME_80 = {"upsample_rates": [5, 4, 2, 2, 1], "upsample_kernel_sizes": [11, 8, 4, 4, 3]}


def golden(folder: str, target: Path) -> Path:
    """Copies a golden folder's checkpoint."""
    target.mkdir(parents=True)
    for path in (GOLDEN / folder).iterdir():
        shutil.copy(path, target / path.name)
    return target


def golden_io(folder: str) -> dict[str, np.ndarray]:
    """Returns the stored inputs and outputs."""
    return dict(np.load(GOLDEN / folder / "io.npz"))


def old_names(generator, blocks: int, f0_codes: str) -> dict[str, torch.Tensor]:
    """Our weights under the published names, weight norm in two parts."""
    weights = {}
    for name, value in generator.state_dict().items():
        name = published_name(name, blocks, f0_codes)
        name = name.replace("parametrizations.weight.original0", "weight_g")
        weights[name.replace("parametrizations.weight.original1", "weight_v")] = value.clone()
    return weights


def make(folder: Path, streams, config: dict, file="g_00000100", f0_codes="f0_dict.", **model):
    """Writes a checkpoint of random weights for some streams; returns (folder, generator)."""
    settings = CONFIG | config
    sizes = UnitHifiganSizes(
        embedding_dim=settings["embedding_dim"],
        upsample_rates=",".join(map(str, settings["upsample_rates"])),
        upsample_kernel_sizes=",".join(map(str, settings["upsample_kernel_sizes"])),
        upsample_initial_channel=32,
        resblock_kernel_sizes="3",
        resblock_dilation_sizes="1,3,5",
        **model,
    )
    torch.manual_seed(4)
    generator = build_vocoder(sizes, streams).eval()
    folder.mkdir(parents=True)
    torch.save({"generator": old_names(generator, 1, f0_codes)}, folder / file)
    (folder / "config.json").write_text(json.dumps(settings))
    return folder, generator
