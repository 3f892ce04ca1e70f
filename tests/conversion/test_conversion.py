"""Conversion: voices by name and by reference, controls that change one thing, and what is refused."""

import numpy as np
import pytest
import soundfile
import torch
from tiny_voices import ENGLISH, RUSSIAN, SPEECH, STATISTICS, melody, save_tiny_bundle, tone

from fairseq_resynth.cli.main import main
from fairseq_resynth.conversion.convert import Controls, convert
from fairseq_resynth.conversion.references import find_voice, validate_reference
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.inference.decoder import decode_in_chunks
from fairseq_resynth.modules.architectures import UnitHifiganSizes, UnitVocosSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bundle(tmp_path_factory.mktemp("voices") / "bundle")


@pytest.fixture(scope="module")
def system(folder):
    return Resynthesizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def wav():
    return load_any_audio(ENGLISH)[0]


@pytest.fixture(scope="module")
def plain(system, wav):
    return convert(system, wav, "anna", "anna")


def voiced_mean(f0):
    return f0[f0 > 0].mean()


def test_a_named_voice_equals_its_vector_and_takes_its_pitch(system, wav, plain):
    boris = convert(system, wav, "boris", "anna")
    vector = find_voice(RUSSIAN, system.streams, system.statistics)
    np.testing.assert_allclose(
        boris.wav,
        system.decode(boris.speech.units[None], None, vector.speaker, f0=boris.speech.f0[None])[0, 0],
        atol=1e-5,
    )  # fmt: skip
    assert boris.speech.units.tolist() == plain.speech.units.tolist()
    np.testing.assert_allclose(
        (voiced_mean(boris.f0) - 120) / 20, (voiced_mean(plain.f0) - 210) / 40, atol=1e-4
    )
    assert np.abs(boris.wav - plain.wav).max() > 1e-4


def test_a_reference_brings_its_own_pitch_and_says_on_what_it_rests(system, wav):
    done = convert(system, wav, [RUSSIAN, SPEECH / "russian" / "call-from.flac"], "anna")
    assert done.voice.measured and len(done.voice.speaker) == 16
    assert done.voice.entry["num_voiced"] > 200
    assert f"from {done.voice.entry['num_voiced']} voiced frames" in done.notes[0]
    assert abs(np.linalg.norm(done.voice.speaker) - 1) < 1e-5
    again = system.convert(wav, target=done.voice, source="anna")
    np.testing.assert_array_equal(again, done.wav)


def test_pitch_changes_alone(system, wav, plain):
    up = convert(system, wav, "anna", "anna", Controls(pitch="shift=+3st"))
    voiced = plain.f0 > 0
    np.testing.assert_allclose(12 * np.log2(up.f0[voiced] / plain.f0[voiced]), 3, atol=1e-3)
    assert up.speech.units.tolist() == plain.speech.units.tolist()
    flat = convert(system, wav, "anna", "anna", Controls(pitch="flatten"))
    assert flat.f0[flat.f0 > 0].std() < 1e-3 < plain.f0[voiced].std()
    far = convert(system, wav, "anna", "anna", Controls(pitch="shift=+14st"))
    assert "110 to 310 Hz" in far.notes[0] and not up.notes


def test_silence_is_noted(system, wav):
    (note,) = convert(system, np.zeros_like(wav), "anna", "anna").notes
    assert "no voiced frame" in note


def test_rate_changes_length_alone(system, wav, plain):
    slow = convert(system, wav, "anna", "anna", Controls(rate=0.8))
    assert len(slow.speech.units) == round(len(plain.speech.units) / 0.8)
    assert abs(len(slow.wav) / len(plain.wav) - 1.25) < 0.01
    assert voiced_mean(slow.f0) == pytest.approx(voiced_mean(plain.f0), rel=0.02)
    assert (slow.f0 > 0).mean() == pytest.approx((plain.f0 > 0).mean(), abs=0.03)
    predicted = convert(system, wav, "anna", "anna", Controls(durations="predicted"))
    runs = np.count_nonzero(np.diff(plain.speech.units)) + 1
    assert np.count_nonzero(np.diff(predicted.speech.units)) + 1 == runs
    assert len(predicted.f0) * 80 == len(predicted.wav)


def test_melody_and_durations_of_another_recording(system, wav, plain):
    units = plain.speech.units
    same = convert(system, wav, "anna", "anna", Controls(pitch=f"from={ENGLISH}"))
    ours = plain.f0 > 0
    off = 12 * np.log2(same.f0[ours] / plain.f0[ours])
    assert np.median(np.abs(off)) < 3 and ((same.f0 > 0) == ours).all()
    theirs = system.units(system.waveform(RUSSIAN))
    timed = convert(system, wav, "anna", "anna", Controls(durations=f"from={RUSSIAN}"))
    assert len(timed.speech.units) == len(theirs)
    assert set(timed.speech.units) <= set(units)


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (tone(150, 0.9), "0.90 s, expected a second or more"),
        (np.zeros(32000, np.float32), "it is silent"),
        (0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32), "is it noise?"),
        (melody(), "is it music or a tone?"),
        (tone(100, 3, decay=0), "is it music or a tone?"),
    ],
)
def test_what_is_no_voice_is_refused_with_a_reason(sound, reason):
    with pytest.raises(ValueError, match=reason.replace("?", r"\?")):
        validate_reference(sound, "ref.wav")


def test_speech_of_every_voice_is_a_reference():
    for voice in ("english", "french", "italian", "russian", "spanish"):
        path = sorted((SPEECH / voice).glob("*.flac"))[0]
        assert (validate_reference(load_any_audio(path)[0], path.name) > 0).mean() > 0.3


def test_one_command_converts_a_folder_and_continues(folder, tmp_path, capsys):
    source = tmp_path / "in" / "deep"
    source.mkdir(parents=True)
    wav, _ = load_any_audio(ENGLISH)
    soundfile.write(source / "a.wav", wav, 16000)
    (tmp_path / "in" / "bad.wav").write_bytes(b"no audio")
    command = ["convert", str(tmp_path / "in"), "--bundle", str(folder), "--speaker", "anna"]
    command += ["--outdir", str(tmp_path / "out"), "--target"]
    assert main([*command, "boris"]) == 1
    printed = capsys.readouterr().out
    assert "1 converted, 0 reused" in printed and "bad.wav" in printed
    first = (tmp_path / "out" / "deep" / "a.wav").read_bytes()
    assert main([*command, "boris"]) == 1
    assert "0 converted, 1 reused" in capsys.readouterr().out
    other = [*command, f"{RUSSIAN}", "--pitch", "flatten", "--rate", "2"]
    assert main(other) == 2
    assert "deep/a.wav exists, and this version has no record that it" in capsys.readouterr().err
    assert (tmp_path / "out" / "deep" / "a.wav").read_bytes() == first
    assert main([*other, "--overwrite"]) == 1
    assert "voiced frames" in capsys.readouterr().out
    assert (tmp_path / "out" / "deep" / "a.wav").read_bytes() != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "clara"], r"neither a speaker of the model \(anna, boris\) nor an audio file"),
        (["--target", "anna", "--rate", "5"], "expected 0.25 to 4"),
        (["--target", "anna", "--pitch", "high"], "expected shift="),
        (["--target", "anna", "--style", "sad"], "needs a model with styles, and this one has none"),
        (["--target", "anna", "--durations", "long"], "expected predicted or from="),
        (["--target", "anna", "--durations", "from=x.wav", "--rate", "2"], "give one of them"),
        (["--target", "anna", "--speaker", "clara"], "unknown speaker 'clara'"),
        (["--target", "anna", "--durations", "from="], "expected predicted or from="),
        (["--target", "anna", "--device", "cud"], "--device cud cannot be used here, expected cpu, cuda"),
        (["--target", "a" * 400], "name too long"),
        (["--target", "anna", "--duration-speaker", "clara"], "unknown speaker 'clara'"),
        ([], "give a target: one of anna, boris"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, options, message):
    import re

    command = ["convert", str(ENGLISH), "--bundle", str(folder), "--outdir", str(tmp_path)]
    assert main([*command, *options]) == 2
    error = capsys.readouterr().err
    assert (
        re.search(message, error) and "Traceback" not in error and not list(tmp_path.glob("*.wav"))
    )


def test_models_without_the_stream_say_so(tmp_path):
    table = Resynthesizer.from_pretrained(
        save_tiny_bundle(tmp_path / "table", False, f0_channels=0, f0_codes={})
    )
    wav, _ = load_any_audio(ENGLISH)
    with pytest.raises(ValueError, match="has a table of speakers .anna, boris. and takes no ref"):
        table.convert(wav, RUSSIAN)
    with pytest.raises(ValueError, match="--pitch needs a model with a pitch stream"):
        table.convert(wav, "anna", controls=Controls(pitch="flatten"))
    vector = np.ones(16, np.float32)
    with pytest.raises(ValueError, match="a speaker vector was given.*--speaker-vectors"):
        table.decode(np.ones((1, 9), np.int64), speaker=[vector])


class LoudestBands:
    """Units of any length: the loudest of 20 bands."""

    num_units = 20

    def __init__(self, unit_hop):
        self.unit_hop = unit_hop

    def encode(self, wav):
        frames = wav[: len(wav) // self.unit_hop * self.unit_hop].reshape(-1, self.unit_hop)
        return np.abs(np.fft.rfft(frames)[:, 1:21]).argmax(1)


@pytest.mark.parametrize(("hop", "f0_channels"), [(200, 2), (200, 0), (441, 0)])
def test_units_of_any_hop_are_converted(wav, hop, f0_channels):
    representation = {"representation": "continuous", "f0_channels": 2} if f0_channels else {}
    streams = StreamSpec(
        hop,
        20,
        speakers=("anna", "boris"),
        speaker_statistics=STATISTICS,
        f0_codes=representation,
        f0_channels=f0_channels,
    )
    small = {"embedding_dim": 8, "dim": 16, "intermediate_dim": 32, "num_layers": 2}
    sizes = UnitVocosSizes(**small, frame_hop=40)
    if hop % 2:
        with pytest.raises(ValueError, match="the frame is 441 samples: expected an even number"):
            build_vocoder(UnitVocosSizes(**small), streams)
        options = {"upsample_rates": "9,7,7", "upsample_kernel_sizes": "19,15,15"}
        sizes = UnitHifiganSizes(embedding_dim=8, upsample_initial_channel=32, **options)
    torch.manual_seed(0)
    bundle = Bundle(build_vocoder(sizes, streams).eval(), sizes, streams)
    system = Resynthesizer(bundle, LoudestBands(hop))
    slow = convert(system, wav, "boris", "anna", Controls(rate=0.8))
    assert len(slow.speech.units) == round(len(wav) // hop / 0.8)
    assert len(slow.wav) == len(slow.speech.units) * hop
    if f0_channels:
        assert slow.f0.shape == (-(-len(slow.wav) // 80),)
    pieces = list(decode_in_chunks(system.decoder, slow.speech, 50))
    np.testing.assert_allclose(np.concatenate(pieces), slow.wav, atol=1e-5)
