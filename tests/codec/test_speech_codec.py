"""Speech to bytes and back: what decodes is what the streams would have said."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from codec_models import speech_files
from tiny_bundles import tiny_sizes, write_bundle

from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.format.bitstream import read_bytes
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.conversion.prosody import change_pitch, change_rate, parse_pitch
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.pitch.representations import VqvaeF0
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.inference.decoder import ChunkDecoder
from fairseq_resynth.modules.architectures import build_vocoder
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, HifiganSizes
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return np.concatenate([load_any_audio(path)[0] for path in speech_files(3)])


IMPORTS = """
import sys
from numba.core.dispatcher import Dispatcher
import fairseq_resynth.codec.speech_codec
modules = [module for name, module in sys.modules.items() if name.startswith("fairseq_resynth")]
functions = [value for module in modules for value in vars(module).values()]
print([f for f in functions if isinstance(f, Dispatcher) and f.signatures], "fairseq" in sys.modules)
"""


def test_import_compiles_nothing_and_loads_no_fairseq():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.stdout.strip() == "[] False", done.stdout + done.stderr


def test_decoded_waveform_is_that_of_the_uncompressed_streams(codec, speech):
    data = codec.encode(speech, "boris")
    streams = codec.resynthesizer.encode(speech, "boris")
    assert len(set(streams.f0_codes.tolist())) > 2
    code = read_bytes(codec.model, codec.identity, data)
    assert code.units.tolist() == streams.units.tolist()
    assert code.f0_codes.tolist() == streams.f0_codes.tolist()
    assert code.speaker == 1 and code.num_samples == len(speech)
    said = codec.resynthesizer.decode(streams.units[None], streams.f0_codes[None], "boris")[0, 0]
    wav = codec.decode(data)
    assert len(wav) == len(speech)
    np.testing.assert_array_equal(wav[: len(said)], said[: len(wav)])
    assert not wav[len(said) :].any()
    assert 8 * len(data) / (len(speech) / 16000) < 332


def test_speech_at_another_rate_is_resampled_and_bad_speech_refused(codec, speech):
    data = codec.encode(np.repeat(speech, 2), "anna", sample_rate=32000)
    assert len(codec.decode(data)) == len(speech)
    for wav, reason in (
        (np.full(16000, np.nan, np.float32), "NaN"),
        (np.zeros(10, np.float32), "expected"),
        (np.zeros((2, 16000), np.float32), "one channel"),
    ):
        with pytest.raises(ValueError, match=reason):
            codec.encode(wav, "anna")
    with pytest.raises(ValueError, match="unknown speaker 'clara'.*anna, boris"):
        codec.encode(speech, "clara")
    silent = codec.decode(codec.encode(np.zeros(16000, np.float32), "anna"))
    assert silent.shape == (16000,) and np.isfinite(silent).all()


def test_voice_is_asked_for_when_the_file_names_none(codec, speech):
    data = codec.encode(speech)
    with pytest.raises(ValueError, match="--target, of anna, boris"):
        codec.decode(data)
    anna, boris = codec.decode(data, "anna"), codec.decode(data, "boris")
    assert np.abs(anna - boris).max() > 1e-4
    np.testing.assert_array_equal(boris, codec.decode(data, "1"))


def test_another_bundle_refuses_the_file(codec, speech):
    data = bytearray(codec.encode(speech, "anna"))
    other = bytes([data[0], data[1] ^ 255, data[2]]) + bytes(data[3:])
    with pytest.raises(CodecError, match=f"needs the model {other[1:3].hex()}…"):
        codec.decode(other)
    data[-1] ^= 1
    with pytest.raises(CodecError, match="checksum"):
        codec.decode(bytes(data))


@pytest.mark.parametrize("piece", [160, 12345])
def test_stream_encodes_to_the_bytes_of_blocks(codec, speech, piece):
    whole = codec.encode_blocks(speech, "anna", seconds=0.8)
    pieces = [speech[start : start + piece] for start in range(0, len(speech), piece)]
    sent, taken = [], 0

    def arriving():
        nonlocal taken
        for part in pieces:
            taken += len(part)
            yield part

    for data in codec.encode_stream(arriving(), "anna", seconds=0.8):
        sent.append((taken, data))
    assert b"".join(data for _, data in sent) == whole
    assert sent[0][0] <= (0.8 + 1.0) * 16000 + piece  # a block and its context
    plain = read_bytes(codec.model, codec.identity, codec.encode(speech, "anna"))
    blocks = read_bytes(codec.model, codec.identity, whole)
    assert len(blocks.units) == len(plain.units) and len(blocks.f0_codes) == len(plain.f0_codes)
    assert (blocks.units == plain.units).all()  # log-mel frames do not look beyond the context
    assert blocks.num_samples == len(speech)


@pytest.mark.parametrize("chunk", [8, 50])
def test_stream_decodes_to_the_samples_of_the_whole(codec, speech, chunk):
    data = codec.encode(speech, "anna")
    expected = codec.decode(data)
    pieces = [data[start : start + 7] for start in range(0, len(data), 7)]
    parts = list(codec.decode_stream(pieces, chunk_units=chunk))
    assert sum(len(part) > 0 for part in parts) > len(expected) / 16000
    wav = np.concatenate(parts)
    assert wav.shape == expected.shape
    np.testing.assert_allclose(wav, expected, atol=1e-5)
    with pytest.raises(CodecError, match="truncated"):
        list(codec.decode_stream([data[:-9]]))


def test_context_covers_what_the_generator_looks_at():
    """The measured receptive field of HiFi-GAN V1's kernels is 20 frames on either side."""
    generator = HifiganGenerator(4, HifiganSizes(upsample_initial_channel=32)).double().eval()
    frames = torch.randn(1, 4, 81, dtype=torch.float64, requires_grad=True)
    wav = generator(frames)
    wav[0, 0, 40 * 320 : 41 * 320].sum().backward()
    seen = frames.grad.abs().sum((0, 1)).nonzero().flatten()
    assert seen.min() >= 40 - generator.context_frames
    assert seen.max() <= 40 + generator.context_frames
    assert generator.context_frames <= int(40 - seen.min()) + 4


def test_missing_pitch_codes_are_refused(codec):
    chunks = ChunkDecoder(codec.resynthesizer.decoder, "anna")
    chunks.push([1] * 200, [0] * 10)
    with pytest.raises(ValueError, match="pitch"):
        chunks.finish()


def test_rate_changes_the_length_of_every_stream(codec, speech):
    units, codes = np.arange(100), np.arange(25)
    slow, slow_codes = change_rate(units, codes, 0.5, 320, 1280)
    assert len(slow) == 200 and len(slow_codes) == 50
    assert slow[::2].tolist() == units.tolist()
    fast, fast_codes = change_rate(units, codes, 2.0, 320, 1280)
    assert fast.tolist() == list(range(1, 100, 2)) and len(fast_codes) == 13
    data = codec.encode(speech, "anna")
    assert len(codec.decode(data, rate=0.8)) == round(len(speech) / 0.8)
    with pytest.raises(ValueError, match="0.25 to 4"):
        codec.decode(data, rate=9)


def test_pitch_is_changed_in_hertz_before_the_quantizer(codec):
    class Plain:
        """A quantizer that rounds to tenths: code 50 is unvoiced or the mean."""

        num_codes, stride = 100, 16

        def decode(self, codes):
            return (codes[:, None].repeat_interleave(16, dim=2) - 50) / 10

        def encode(self, f0):
            return (f0[:, 0, ::16] * 10).round().long() + 50

    representation, boris = VqvaeF0(Plain()), codec.resynthesizer.statistics.entry("boris")
    codes = np.array([50, 60, 70, 40])  # unvoiced, 140, 160 and 100 Hz of boris
    up = change_pitch(codes, "scale=1.25", representation, boris)
    assert up.tolist() == [50, round(50 + (140 * 1.25 - 120) / 2), 90, round(50 + (125 - 120) / 2)]
    flat = change_pitch(codes, "flatten", representation, boris)
    assert flat[0] == 50 and len(set(flat[1:].tolist())) == 1
    assert parse_pitch("shift=+12st") == ("scale", 2.0) and parse_pitch("-12") == ("scale", 0.5)
    for text in ("shift=40st", "loud", "scale=0"):
        with pytest.raises(ValueError, match="shift="):
            parse_pitch(text)


def test_context_model_of_other_units_is_refused(codec):
    from codec_models import tables_model

    with pytest.raises(ValueError, match="num_units 100, the bundle 20.*fit-codec"):
        SpeechCodec(codec.resynthesizer, tables_model())
    with pytest.raises(FileNotFoundError):
        SpeechCodec.from_pretrained("/nowhere")


def test_bundle_without_a_context_model_names_the_command(bundle_folder, tmp_path):
    for path in bundle_folder.iterdir():
        if path.name != "entropy.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match="resynth fit-codec"):
        SpeechCodec.from_pretrained(tmp_path)


def test_model_on_continuous_f0_is_refused_before_anything_is_encoded(tmp_path):
    """Files without the F0 that the generator takes could never be decoded."""
    system = write_bundle("units, raw pitch", tmp_path)
    units = Utterance(np.arange(10).repeat(3))
    model = fit_entropy_model([units], Settings(10), TrainingOptions(hidden_size=0))
    message = "continuous F0 .1 channels at 200 Hz.* cannot store.*`resynth quantize-f0`"
    with pytest.raises(ValueError, match=message):
        SpeechCodec(system, model)
    with pytest.raises(ValueError, match=message):  # and not: fit a context model first
        SpeechCodec.from_pretrained(tmp_path)


def test_codec_of_a_bundle_on_the_hub(bundle_folder, codec, speech, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(bundle_folder))
    fetched = SpeechCodec.from_pretrained("lab/voice")
    assert fetched.identity == codec.identity
    assert fetched.encode(speech, "anna") == codec.encode(speech, "anna")


def test_speech_of_slow_units_is_as_long_as_the_original(tmp_path):
    """At 12.5 Hz an encoder of HuBERT's windows leaves up to 1359 samples without a unit."""
    streams, sizes = StreamSpec(1280, 10), tiny_sizes("unit_vocos")
    bundle = Bundle(build_vocoder(sizes, streams), sizes, streams)
    rows = [Utterance(np.arange(30) % 10, name="a")]
    model = fit_entropy_model(rows, Settings(10, 1280), TrainingOptions(hidden_size=0))
    codec = SpeechCodec(Resynthesizer(bundle), model)
    data = codec.pack(Utterance(np.arange(20) % 10, num_samples=20 * 1280 + 1359))
    assert len(codec.decode(data)) == 20 * 1280 + 1359
    assert sum(map(len, codec.decode_stream([data]))) == 20 * 1280 + 1359
    assert len(codec.decode(data, rate=2.0)) == round((20 * 1280 + 1359) / 2)
