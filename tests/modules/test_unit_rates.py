"""Every generator at every rate of units, alone and with F0 of finer, coarser and odd ratios."""

import math

import numpy as np
import pytest
import torch
from tiny_bundles import tiny_sizes

from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.decoder import UnitDecoder, decode_all, decode_in_chunks
from fairseq_resynth.modules.architectures import ARCHITECTURES, build_vocoder, default_sizes
from fairseq_resynth.modules.generators.hifigan import default_upsampling


def tiny_decoder(arch, streams):
    torch.manual_seed(0)
    model = build_vocoder(tiny_sizes(arch), streams)
    for name, parameter in model.named_parameters():
        if "vocos" in arch and "norm" not in name:  # at first its distant frames hardly matter
            torch.nn.init.normal_(parameter, std=0.3)
    return UnitDecoder(model, streams)


def speech_of(streams, num_units):
    rng, samples = np.random.default_rng(0), num_units * streams.unit_hop
    codes, f0 = None, None
    if streams.num_f0_codes:
        codes = rng.integers(streams.num_f0_codes, size=-(-samples // streams.f0_code_hop))
    if streams.f0_channels:
        f0 = rng.standard_normal((streams.f0_channels, -(-samples // 80))).astype(np.float32)
    return Utterance(rng.integers(10, size=num_units), codes, num_samples=samples, f0=f0)


def check_chunks(arch, streams, seconds=1.6):
    decoder = tiny_decoder(arch, streams)
    speech = speech_of(streams, round(seconds * 16000 / streams.unit_hop))
    whole = decode_all(decoder, [speech])[0]
    assert len(whole) == len(speech.units) * streams.unit_hop
    assert np.isfinite(whole).all() and np.abs(whole).max() > 1e-4
    pieces = list(decode_in_chunks(decoder, speech, max(1, 4800 // streams.unit_hop)))
    assert len(pieces) > 1
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [100, 50, 25, 12.5])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_generator_at_every_rate(arch, rate):
    check_chunks(arch, StreamSpec(round(16000 / rate), 10, 1280, 5))


@pytest.mark.parametrize(
    "unit_hop,f0_code_hop",
    [(640, 320), (480, 320), (400, 1280), (200, 640)],
)
@pytest.mark.parametrize("arch", ["unit_hifigan", "unit_vocos", "unit_source_filter"])
def test_f0_codes_at_any_ratio_to_the_units(arch, unit_hop, f0_code_hop):
    check_chunks(arch, StreamSpec(unit_hop, 10, f0_code_hop, 5))


@pytest.mark.parametrize("unit_hop", [640, 200])
@pytest.mark.parametrize("arch", ["unit_hifigan", "unit_vocos", "unit_source_filter"])
def test_continuous_f0_at_any_ratio_to_the_units(arch, unit_hop):
    check_chunks(arch, StreamSpec(unit_hop, 10, f0_channels=2))


def test_the_papers_upsampling_follows_from_the_rule():
    assert default_upsampling(320) == ([5, 4, 4, 2, 2], [11, 8, 8, 4, 4])
    assert default_upsampling(160) == ([5, 4, 2, 2, 2], [11, 8, 4, 4, 4])
    assert default_upsampling(80) == ([5, 4, 2, 2], [11, 8, 4, 4])
    assert default_upsampling(640) == ([5, 4, 4, 4, 2], [11, 8, 8, 8, 4])
    assert default_upsampling(1280) == ([5, 4, 4, 4, 4], [11, 8, 8, 8, 8])


@pytest.mark.parametrize("hop", [125, 200, 240, 400, 480, 500, 800, 960, 1000, 1600, 2560])
def test_upsampling_of_other_hops(hop):
    rates, kernels = default_upsampling(hop)
    assert math.prod(rates) == hop and rates == sorted(rates, reverse=True)
    assert all((kernel - rate) % 2 == 0 for rate, kernel in zip(rates, kernels, strict=True))


@pytest.mark.parametrize(
    "arch,hop,message",
    [
        (
            "unit_hifigan",
            642,
            "frames of 642 samples: expected another hop, 640 or 648 for instance",
        ),
        ("unit_vocos", 326, "no frame of 16 to 320 samples divides .* 326 samples"),
        ("unit_source_filter", 326, "no frame of 16 to 160 samples divides .* 326 samples"),
        ("unit_vocos", 125, "125 samples: expected an even number"),
    ],
)
def test_hops_that_no_stack_of_strides_makes(arch, hop, message):
    with pytest.raises(ValueError, match=message):
        build_vocoder(default_sizes(arch), StreamSpec(hop, 10))
