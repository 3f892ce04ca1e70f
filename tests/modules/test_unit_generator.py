"""Alignment of streams, padding, and mistakes."""

import ast
from pathlib import Path

import pytest
import torch

import fairseq_resynth
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, HifiganSizes
from fairseq_resynth.modules.unit_generator import UnitGenerator, frame_channels


def make(num_f0_codes=5, num_speakers=3, unit_hop=320):
    speakers = tuple("abc"[:num_speakers])
    streams = StreamSpec(unit_hop, 10, num_f0_codes=num_f0_codes, speakers=speakers)
    rates, kernels = {320: ("5,4,4,4", "11,8,8,8"), 160: ("5,4,4,2", "11,8,8,4")}[unit_hop]
    torch.manual_seed(0)
    sizes = HifiganSizes(rates, kernels, 32, "3,7", "1,3;1,3")
    generator = HifiganGenerator(frame_channels(streams, 8), sizes)
    return UnitGenerator(generator, streams, 8).eval()


@torch.no_grad()
def test_padded_batch_equals_single():
    model = make()
    units = torch.randint(10, (2, 60))
    f0_codes = torch.randint(5, (2, 15))
    speaker = torch.tensor([0, 2])
    lengths = torch.tensor([33, 60])
    batch = model(units, f0_codes, speaker, unit_lengths=lengths)
    alone = model(units[:1, :33], f0_codes[:1, :9], speaker[:1])
    torch.testing.assert_close(batch[:1, :, : 33 * 320], alone, atol=1e-6, rtol=0)
    assert batch[0, 0, 33 * 320 :].abs().max() == 0
    full = model(units[1:], f0_codes[1:], speaker[1:])
    torch.testing.assert_close(batch[1:], full, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("unit_hop", [160, 320])
@pytest.mark.parametrize("num_units", [1, 7, 29, 31])
def test_any_number_of_units(unit_hop, num_units):
    model = make(unit_hop=unit_hop)
    codes = -(-num_units * unit_hop // 1280)
    wav = model(
        torch.zeros(1, num_units, dtype=int), torch.zeros(1, codes, dtype=int), torch.tensor([1])
    )
    assert wav.shape == (1, 1, num_units * unit_hop)


def test_one_pitch_code_is_held_for_four_units():
    """Changing code 2 changes frames 8 … 11 of the generator's input and no other."""
    model = make()
    seen = []
    model.generator.forward = lambda x, lengths: seen.append(x)
    units, speaker = torch.zeros(1, 16, dtype=int), torch.tensor([0])
    model(units, torch.tensor([[0, 0, 0, 0]]), speaker)
    model(units, torch.tensor([[0, 0, 1, 0]]), speaker)
    changed = (seen[0] != seen[1]).any(1)[0].nonzero().flatten().tolist()
    assert changed == [8, 9, 10, 11]


def test_missing_and_superfluous_streams():
    units, codes, speaker = (
        torch.zeros(1, 4, dtype=int),
        torch.zeros(1, 1, dtype=int),
        torch.tensor([0]),
    )
    with pytest.raises(ValueError, match="trained with the stream `F0 codes`, and none was given"):
        make()(units, None, speaker)
    with pytest.raises(ValueError, match="trained without it"):
        make(num_f0_codes=0)(units, codes, speaker)
    with pytest.raises(ValueError, match="covers 4 of 8 frames: expected at least 2 values"):
        make()(torch.zeros(1, 8, dtype=int), codes, speaker)


def test_hops_that_do_not_fit():
    with pytest.raises(
        ValueError, match="unit_hop is 160 samples and a frame of the generator 320"
    ):
        UnitGenerator(make(0, 0).generator, StreamSpec(160, 10))


def test_removing_weight_norm_keeps_the_output():
    model = make()
    inputs = torch.randint(10, (1, 8)), torch.randint(5, (1, 2)), torch.tensor([1])
    with torch.no_grad():
        before = model(*inputs)
        model.generator.remove_weight_norm()
        torch.testing.assert_close(model(*inputs), before, atol=1e-6, rtol=0)
    assert not any("parametrizations" in name for name in model.state_dict())


def test_modules_import_no_fairseq():
    folder = Path(fairseq_resynth.__file__).parent / "modules"
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            for name in names:
                assert name.split(".")[0] != "fairseq", f"{path.name} imports {name}"
                if name.startswith("fairseq_resynth"):
                    room = name.split(".")[1]
                    assert room in ("modules", "constants"), f"{path.name}: {name}"
