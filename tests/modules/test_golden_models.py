"""The generator and the F0 VQ-VAE with the original's weights against its stored outputs."""

import json

import numpy as np
import pytest
import torch
from golden import GOLDEN

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.interop.weight_names import convert_vqvae, generator_name
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, HifiganSizes
from fairseq_resynth.modules.quantizers import F0Vqvae
from fairseq_resynth.modules.unit_generator import UnitGenerator, frame_channels


def _load(folder):
    directory = GOLDEN / folder
    config = json.loads((directory / "config.json").read_text())
    checkpoint = next(directory.glob("g_*"))
    state = torch.load(checkpoint, weights_only=True)["generator"]
    io = {name: torch.from_numpy(value) for name, value in np.load(directory / "io.npz").items()}
    return config, state, io


def _text(integers):
    return ",".join(map(str, integers))


def _generator(config, state):
    num_speakers = len(state["spkr.weight"]) if "spkr.weight" in state else 0
    streams = StreamSpec(
        config.get("code_hop_size", 320),
        config["num_embeddings"],
        num_f0_codes=20 if "f0_dict.weight" in state else 0,
        speakers=tuple(map(str, range(num_speakers))),
    )
    sizes = HifiganSizes(
        _text(config["upsample_rates"]),
        _text(config["upsample_kernel_sizes"]),
        config["upsample_initial_channel"],
        _text(config["resblock_kernel_sizes"]),
        ";".join(map(_text, config["resblock_dilation_sizes"])),
    )
    model = UnitGenerator(HifiganGenerator(frame_channels(streams, 128), sizes), streams)
    weights = {name: w for name, w in state.items() if not name.startswith("dur_predictor.")}
    weights = {
        generator_name(name, 3): w
        for name, w in weights.items()
        if not name.startswith("quantizer.")
    }
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.mark.parametrize("folder", ["vctk_hubert100_lut_small", "lj_cpc100_lut_small"])
def test_units_pitch_and_speaker(folder):
    config, state, io = _load(folder)
    quantizer = {n: w for n, w in state.items() if n.startswith("quantizer.")}
    f0_vqvae = F0Vqvae()
    f0_vqvae.load_state_dict(convert_vqvae(quantizer, "quantizer.", "F0 quantizer"), strict=True)
    with torch.no_grad():
        f0_codes = f0_vqvae.eval().encode(io["f0"])
        wav = _generator(config, state)(io["units"], f0_codes, io["speaker"][:, 0])
    assert torch.equal(f0_codes, io["f0_codes"])
    torch.testing.assert_close(wav, io["wav"], atol=1e-5, rtol=0)


def test_units_alone():
    config, state, io = _load("hubert100_duration_small")
    with torch.no_grad():
        wav = _generator(config, state)(io["units"])
    torch.testing.assert_close(wav, io["wav"], atol=1e-5, rtol=0)


def test_f0_quantizer():
    _, state, io = _load("f0_quantizer")
    model = F0Vqvae()
    model.load_state_dict(convert_vqvae(state, "quantizer.", "F0 quantizer"), strict=True)
    with torch.no_grad():
        reconstructed, codes, commitment = model.eval()(io["f0"])
    assert torch.equal(codes, io["f0_codes"])
    torch.testing.assert_close(reconstructed, io["f0_reconstructed"], atol=1e-5, rtol=0)
    torch.testing.assert_close(commitment, io["commit_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(codes), reconstructed)
