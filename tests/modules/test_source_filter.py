"""The pulses, the pitch head and the filters of `SourceFilterGenerator`."""

import numpy as np
import pytest
import torch

from fairseq_resynth.modules.generators.inference import InferenceGenerator
from fairseq_resynth.modules.generators.source_filter import (
    PitchHead,
    SourceClock,
    SourceFilterGenerator,
    SourceFilterSizes,
    interpolate_frames,
    pulse_phase,
    pulses,
)

RATE = 16000


def make_generator(**sizes):
    torch.manual_seed(0)
    sizes = {"dim": 32, "intermediate_dim": 64, "num_layers": 2, **sizes}
    generator = SourceFilterGenerator(20, (8, 20), SourceFilterSizes(**sizes)).eval()
    with torch.no_grad():
        generator.pitch_head.convs[-1].bias.copy_(torch.tensor([0.3, 0.0]))
        generator.pitch_head.convs[-1].weight.mul_(20)  # voiced and unvoiced stretches
    return generator


def test_pulses_are_the_sum_of_all_harmonics_to_unit_power():
    f0 = torch.full((1, RATE), 410.0)
    phase = pulse_phase(f0, torch.ones_like(f0), RATE)
    count = int(8000 // 410)
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    wanted = sum(torch.cos(2 * np.pi * 410 * k * time) for k in range(1, count + 1))
    wanted = wanted * (2 / count) ** 0.5
    found = pulses(phase, f0, RATE)[0].double()
    assert (found - wanted).abs().max() < 2e-3
    assert found.square().mean() == pytest.approx(1, abs=0.01)


def test_the_phase_follows_a_glide_and_begins_again_where_voice_begins():
    f0 = torch.linspace(100, 200, RATE)[None]
    gate = torch.ones_like(f0)
    whole = pulse_phase(f0, gate, RATE)
    assert whole[0, -1].item() == pytest.approx(
        150, abs=0.02
    )  # the mean of 100 and 200 Hz over a second
    gate[:, 4000:5000] = 0
    again = pulse_phase(f0, gate, RATE)
    assert again[0, 5000] == 0 and torch.equal(again[0, :5000], whole[0, :5000])
    assert torch.allclose(again[0, 5000:], whole[0, 5000:] - whole[0, 5000])


def test_frames_are_joined_by_straight_lines_level_at_both_ends():
    values = torch.tensor([[1.0, 3.0, 99.0]])
    found = interpolate_frames(values, 4, torch.tensor([2]))[0, :8]
    assert found.tolist() == [1, 1, 1.25, 1.75, 2.25, 2.75, 3, 3]


def test_measured_f0_is_averaged_to_frames_in_octaves():
    source = torch.tensor([[[150.0, 150, 300, 75], [1, 1, 0, 0]]])
    log_f0, voicing = PitchHead.measured(source, 2)
    assert log_f0.tolist() == [[0, 0]] and voicing.tolist() == [[1, 0]]
    # five frames of 80 samples, four of 100: the F0 at their middles
    source = torch.stack([37.5 * 2.0 ** torch.arange(5), torch.ones(5)])[None]
    assert PitchHead.measured(source, 4)[0].tolist() == [[-2, -1, 1, 2]]
    assert PitchHead.hertz(torch.tensor([1.0, -9.0])).tolist() == [300, 30]


def test_pitch_loss_is_semitones_over_voiced_frames_plus_bits_of_voicing():
    head = PitchHead(3)
    with torch.no_grad():
        for conv in head.convs:
            conv.weight.zero_()
            conv.bias.zero_()
    source = torch.tensor([[[300.0] * 4, [1.0, 1, 0, 0]]])  # one octave above the head's 150 Hz
    loss = head.loss(torch.randn(1, 3, 2), source)
    assert loss.item() == pytest.approx(12 + 1)
    padded = torch.nn.functional.pad(source, (0, 4))
    again = head.loss(torch.randn(1, 3, 4), padded, torch.tensor([2]))
    assert again.item() == pytest.approx(12 + 1)


def test_a_recordings_f0_is_heard_in_the_output():
    generator = make_generator()
    with torch.no_grad():
        generator.filters.bias[-321:] = -20  # no noise
        generator.filters.weight[-321:] = 0
    x = torch.randn(1, 20, 60)
    source = torch.stack([torch.full((120,), 220.0), torch.ones(120)])[None]
    wav = generator(x, source_f0=source)[0, 0].detach().numpy()
    spectrum = np.abs(np.fft.rfft(wav * np.hanning(len(wav))))
    hertz = np.fft.rfftfreq(len(wav), 1 / RATE)
    on = np.abs((hertz + 110) % 220 - 110) < 15
    assert spectrum[on].mean() > 3 * spectrum[~on].mean()


def test_rows_of_a_padded_batch_are_as_they_are_alone():
    generator = make_generator()
    x = torch.randn(3, 20, 90)
    lengths = torch.tensor([90, 31, 60])
    together = generator(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = generator(x[row : row + 1, :, :length])
        assert (together[row, :, : length * 160] - alone[0]).abs().max() < 1e-5
        assert not together[row, :, length * 160 :].any()


def test_windows_with_a_clock_join_to_the_whole():
    generator = make_generator()
    x = torch.randn(1, 20, 400, generator=torch.Generator().manual_seed(3))
    # No frame is so near the edge of a 5-cent step, or of voicing, that rounding decides about it.
    log_f0, logit = generator.pitch_head(x[:, 8:20])[0]
    steps = 240 * log_f0
    assert (steps - steps.floor() - 0.5).abs().min() > 1e-3 and logit.abs().min() > 1e-4
    whole = generator(x)
    assert 0.2 < generator.pitch_head.predict(x[:, 8:20])[1].mean() < 0.8
    context, hop, pieces, clock = generator.context_frames, generator.hop, [], SourceClock()
    for start in range(0, 400, 40):
        first, following = max(start - context, 0), max(start + 40 - context, 0)
        clock.start = first * hop
        clock.next_anchor = (following + generator.pitch_context_frames) * hop if following else 0
        window = generator(x[:, :, first : start + 40 + context], clock=clock)
        pieces.append(window[:, :, (start - first) * hop : (start + 40 - first) * hop])
    assert (torch.cat(pieces, dim=2) - whole).abs().max() < 1e-5


def test_gradients_reach_the_filters_but_the_melody_only_through_its_own_loss():
    generator = make_generator().train()
    x = torch.randn(1, 20, 56, requires_grad=True)
    source = torch.stack([torch.full((112,), 180.0), torch.ones(112)])[None]
    generator(x, source_f0=source).square().sum().backward()
    assert all(parameter.grad is None for parameter in generator.pitch_head.parameters())
    assert generator.filters.weight.grad.abs().sum() > 0 and x.grad.abs().sum() > 0
    generator.pitch_loss(x, source).backward()
    assert all(parameter.grad is not None for parameter in generator.pitch_head.parameters())


@torch.inference_mode()
def test_the_source_has_the_precision_of_the_backbone():
    generator, x = make_generator(), torch.randn(2, 20, 30)
    low = InferenceGenerator(generator, "bfloat16")(x, torch.tensor([20, 30]))
    assert low.dtype == torch.float32 and low.isfinite().all() and low.abs().max() > 0


@pytest.mark.parametrize(
    "sizes", [{"frame_hop": 100}, {"n_fft": 200}, {"frame_hop": 240, "n_fft": 360}]
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="expected a multiple"):
        make_generator(**sizes)
