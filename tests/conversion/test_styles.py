"""Styles in every command that speaks: chosen by name, asked for where there are several."""

import pytest
import soundfile
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.files import load_any_audio
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.resynthesizer import Resynthesizer


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Each verb's command without its style and its output's name."""
    folder = tmp_path_factory.mktemp("styles")
    none = {"f0_channels": 0, "f0_codes": {}}
    bundle = save_tiny_bundle(folder / "bundle", False, styles=("calm", "sad"), **none)
    system = Resynthesizer.from_pretrained(bundle)
    rows = [Utterance(system.units(load_any_audio(ENGLISH)[0]))]
    settings = Settings(20, unit_hop=160)
    model = fit_entropy_model(rows, settings, TrainingOptions(hidden_size=0))
    model.save(bundle / "entropy.safetensors")
    (folder / "a.rsyn").write_bytes(SpeechCodec(system, model).encode(ENGLISH, "anna"))
    voice = ["--target", "anna"]
    return {
        "convert": ["convert", ENGLISH, "--bundle", bundle, "--target", "anna", "--outdir"],
        "decode": ["decode", folder / "a.rsyn", "--bundle", bundle, *voice, "-o"],
        "resynthesize": ["resynthesize", ENGLISH, "--bundle", bundle, *voice, "--outdir"],
    }


@pytest.mark.parametrize("verb", ["convert", "decode", "resynthesize"])
def test_a_style_is_spoken_or_asked_for(commands, verb, tmp_path, capsys):
    wavs = []
    for style in ("calm", "sad"):
        out = tmp_path / f"{style}.wav" if verb == "decode" else tmp_path / style
        assert main(list(map(str, [*commands[verb], out, "--style", style]))) == 0
        wavs.append(soundfile.read(out if verb == "decode" else next(out.glob("*.wav")))[0])
    assert len(wavs[0]) == len(wavs[1]) and (wavs[0] != wavs[1]).any()
    capsys.readouterr()
    for wrong in ([], ["--style", "mad"]):
        assert main(list(map(str, [*commands[verb], tmp_path / "x.wav", *wrong]))) == 2
        error = capsys.readouterr().err
        assert "the model has calm, sad" in error and len(error.splitlines()) == 1
