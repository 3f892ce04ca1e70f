"""Synthesis in chunks, channels last and in bfloat16: the samples of decoding at once."""

import numpy as np
import pytest
import soundfile
import torch

from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference import synthesis
from fairseq_resynth.inference.decoder import (
    ChunkDecoder,
    UnitDecoder,
    decode_all,
    decode_in_chunks,
)
from fairseq_resynth.inference.synthesis import Job, write_wavs
from fairseq_resynth.modules.architectures import UnitHifiganSizes, UnitVocosSizes, build_vocoder
from fairseq_resynth.modules.generators import inference

MODELS = {
    "hifigan": UnitHifiganSizes(embedding_dim=8, upsample_initial_channel=32),
    "vocos": UnitVocosSizes(embedding_dim=8, dim=16, intermediate_dim=32, num_layers=3),
    "vocos_half_frames": UnitVocosSizes(
        embedding_dim=8, dim=16, intermediate_dim=32, num_layers=3, frame_hop=160
    ),
}
RAW_PITCH = {  # at 200 Hz: frames of 80 samples or less
    "hifigan": UnitHifiganSizes(
        embedding_dim=8,
        upsample_rates="5,4,2,2",
        upsample_kernel_sizes="11,8,4,4",
        upsample_initial_channel=32,
    ),
    "vocos": UnitVocosSizes(
        embedding_dim=8, dim=16, intermediate_dim=32, num_layers=3, frame_hop=80
    ),
}
SPEAKERS = ("anna", "boris")


def make(kind, f0_channels=0, precision="float32"):
    torch.manual_seed(0)
    codes = 0 if f0_channels else 5
    streams = StreamSpec(320, 10, 1280, codes, SPEAKERS, f0_channels=f0_channels)
    model = build_vocoder((RAW_PITCH if f0_channels else MODELS)[kind], streams)
    for name, parameter in model.named_parameters():
        if "vocos" in kind and "norm" not in name:  # at first its distant frames hardly matter
            torch.nn.init.normal_(parameter, std=0.3)
    return UnitDecoder(model, streams, precision=precision), model


def utterance(units, f0_channels=0):
    rng = np.random.default_rng(units)
    codes = None if f0_channels else rng.integers(5, size=-(-units // 4))
    f0 = rng.standard_normal((f0_channels, 4 * units)).astype(np.float32) if f0_channels else None
    return Utterance(rng.integers(10, size=units), codes, "boris", units * 320, f0)


@pytest.mark.parametrize(
    "kind,f0_channels", [*((kind, 0) for kind in MODELS), *((kind, 2) for kind in RAW_PITCH)]
)
def test_chunks_equal_the_whole(kind, f0_channels):
    decoder, _ = make(kind, f0_channels)
    speech = utterance(151, f0_channels)
    whole = decode_all(decoder, [speech])[0]
    assert np.abs(whole).max() > 0.01
    for chunk in (18, 1000):
        pieces = list(decode_in_chunks(decoder, speech, chunk))
        assert max(map(len, pieces)) <= -(-chunk // 4) * 4 * 320
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5, rtol=0)


def test_too_little_context_would_show():
    decoder, _ = make("vocos")
    speech = utterance(200)
    chunks = ChunkDecoder(decoder, "boris", 50)
    chunks.context = 8
    pieces = chunks.pieces(speech.units, speech.f0_codes)
    whole = decode_all(decoder, [speech])[0]
    assert np.abs(np.concatenate(list(pieces)) - whole).max() > 1e-4


@pytest.mark.parametrize("chunk", [0, -4])
def test_a_chunk_has_units(chunk):
    decoder, _ = make("hifigan")
    with pytest.raises(ValueError, match=f"chunk_units is {chunk}, expected 1 unit or more"):
        list(decode_in_chunks(decoder, utterance(9), chunk))


def test_a_long_utterance_is_written_in_pieces(tmp_path, monkeypatch):
    decoder, _ = make("vocos")
    jobs = [Job("long", utterance(4000)), Job("short", utterance(30))]
    expected = decode_all(decoder, [job.speech for job in jobs], batch_seconds=1000)
    longest = []
    decode = decoder.decode

    def record(units, *rest, **named):
        longest.append(units.shape)
        return decode(units, *rest, **named)

    monkeypatch.setattr(decoder, "decode", record)
    done = write_wavs(decoder, jobs, tmp_path, {}, subtype="FLOAT")
    assert done.written == 2 and done.seconds == pytest.approx(80.6)
    assert max(shape[1] for shape in longest) < 1600
    for job, wav in zip(jobs, expected, strict=True):
        written, rate = soundfile.read(tmp_path / f"{job.name}.wav", dtype="float32")
        assert rate == 16000
        np.testing.assert_allclose(written, wav, atol=1e-5, rtol=0)
    at_once = decode_all(decoder, [job.speech for job in jobs])  # in chunks as well, in memory
    np.testing.assert_allclose(at_once[0], expected[0], atol=1e-5, rtol=0)


def test_an_interrupted_synthesis_continues_to_the_same_bytes(tmp_path, monkeypatch):
    """At any of its writes, also of the recording; the utterances of a batch stay together."""
    decoder, _ = make("vocos")
    soundfile.write(tmp_path / "a.wav", np.zeros(32000), 16000)
    jobs = [Job(str(size), utterance(size), tmp_path / "a.wav") for size in (90, 31, 60)]

    def run(folder):
        write_wavs(decoder, jobs, folder, {}, subtype="FLOAT", with_reference=True)
        return {path.name: path.read_bytes() for path in folder.glob("*.wav")}

    expected = run(tmp_path / "whole")
    assert len(expected) == 6
    write, calls = synthesis.write_audio, 0

    def stopped(*args, **named):
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return write(*args, **named)

    for last in range(1, 7):
        calls, folder = 0, tmp_path / f"stopped_{last}"
        monkeypatch.setattr(synthesis, "write_audio", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
        monkeypatch.setattr(synthesis, "write_audio", write)
        assert run(folder) == expected


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_inference_leaves_the_model_and_its_output_as_they_are(kind):
    decoder, model = make(kind)
    names = list(model.state_dict())
    batch = [utterance(units) for units in (40, 13)]
    wavs = decode_all(decoder, batch)
    for speech, wav in zip(batch, wavs, strict=True):
        inputs = [torch.as_tensor(row)[None] for row in (speech.units, speech.f0_codes)]
        plain = model(*inputs, torch.tensor([1]))[0, 0].numpy()
        np.testing.assert_allclose(wav, plain, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names


@torch.no_grad()
def test_tiles_of_the_late_stages_equal_the_whole(monkeypatch):
    monkeypatch.setattr(inference, "TILE_VALUES", 2000)  # 125 positions of 16 channels
    decoder, model = make("hifigan")
    batch = [utterance(units) for units in (40, 13)]
    inputs = [torch.as_tensor(row)[None] for row in (batch[0].units, batch[0].f0_codes)]
    plain = model(*inputs, torch.tensor([1]))[0, 0].numpy()
    blocks = [m for m in decoder.generator.modules() if isinstance(m, inference.TiledResBlocks)]
    assert [stage.positions for stage in blocks] == [125, 250, 500, 1000, 2000]
    wavs = decode_all(decoder, batch, batch_seconds=1000)
    np.testing.assert_allclose(wavs[0], plain, atol=1e-5, rtol=0)
    np.testing.assert_allclose(wavs[1], decode_all(decoder, batch[1:])[0], atol=1e-5, rtol=0)
    for block in (block for stage in blocks for block in stage.blocks):
        block.reach //= 2
    assert (
        np.abs(decode_all(decoder, batch[:1])[0] - plain).max() > 1e-4
    )  # too little context shows


@pytest.mark.parametrize("kind", ["hifigan", "vocos"])
def test_bfloat16_stays_near_float32(kind):
    speech = utterance(40)
    torch.manual_seed(0)
    wavs = [
        decode_all(make(kind, precision=name)[0], [speech])[0] for name in ("float32", "bfloat16")
    ]
    assert wavs[1].dtype == np.float32 and not np.array_equal(*wavs)
    error = np.square(wavs[1] - wavs[0]).mean() / np.square(wavs[0] - wavs[0].mean()).mean()
    assert error < (0.01 if kind == "hifigan" else 0.1)


def test_unknown_precision():
    with pytest.raises(ValueError, match="'half': expected float32 or bfloat16"):
        make("hifigan", precision="half")
