"""Tiny untrained bundles of every kind of stream."""

import dataclasses

import numpy as np
import torch
from published_checkpoints import FRAME_80

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder, default_sizes
from fairseq_resynth.resynthesizer import Resynthesizer

UNITS = np.array([[3, 3, 1, 9, 0, 4, 4, 7]])
SIZES = {"embedding_dim": 8, "upsample_initial_channel": 32, "resblock_kernel_sizes": "3"}
SIZES["resblock_dilation_sizes"] = "1,3,5"
KINDS = {
    "units": (StreamSpec(320, 10), {}),
    "units at 100 Hz": (StreamSpec(160, 10), {}),
    "units, durations": (StreamSpec(320, 10), {"duration_predictor": True}),
    "units, speaker": (StreamSpec(320, 10, speakers=("ann", "bob", "cid")), {}),
    "units, speaker, durations": (
        StreamSpec(320, 10, speakers=("ann", "bob", "cid")),
        {"duration_predictor": True, "duration_hidden_dim": 12, "duration_condition": "none"},
    ),
    "units, speaker, own rhythm": (
        StreamSpec(320, 10, speakers=("ann", "bob", "cid")),
        {"duration_predictor": True, "duration_hidden_dim": 12},
    ),
    "units, pitch, speaker": (StreamSpec(320, 10, 1280, 5, speakers=("ann", "bob")), {}),
    "units, raw pitch": (
        StreamSpec(320, 10, f0_channels=1),
        {key: ",".join(map(str, value)) for key, value in FRAME_80.items()},
    ),
    "units, speaker vector": (StreamSpec(320, 10, speaker_dim=6), {}),
}


def tiny_sizes(arch):
    """The smallest sizes of any generator, with its default frames."""
    small = {"embedding_dim": 8, "dim": 16, "intermediate_dim": 24, "num_layers": 2, **SIZES}
    sizes = default_sizes(arch)
    known = {field.name for field in dataclasses.fields(sizes)}
    return dataclasses.replace(sizes, **{name: small[name] for name in small if name in known})


def write_bundle(kind, folder):
    streams, model = KINDS[kind]
    torch.manual_seed(7)
    sizes = UnitHifiganSizes(**SIZES, **model)
    save_bundle(folder, Bundle(build_vocoder(sizes, streams).eval(), sizes, streams))
    return Resynthesizer.from_pretrained(folder)
