"""Named tokens (style, language) in every command that speaks: chosen by name, or asked for."""

import json

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.constants import TOKENS
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.decoder import UnitDecoder
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer

NAMES = {"style": ("calm", "sad"), "language": ("de", "en")}


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Each verb's command without its tokens and its output's name."""
    folder = tmp_path_factory.mktemp("tokens")
    none = {"f0_channels": 0, "f0_codes": {}}
    bundle = save_tiny_bundle(folder / "bundle", False, tokens=NAMES, **none)
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


@pytest.mark.parametrize(
    "verb,token", [(v, t) for v in ("convert", "decode", "resynthesize") for t in NAMES]
)
def test_a_name_is_spoken_or_asked_for(commands, verb, token, tmp_path, capsys):
    other = next(name for name in NAMES if name != token)
    fixed, wavs = [f"--{other}", NAMES[other][0]], []
    for name in NAMES[token]:
        out = tmp_path / f"{name}.wav" if verb == "decode" else tmp_path / name
        assert main(list(map(str, [*commands[verb], out, f"--{token}", name, *fixed]))) == 0
        wavs.append(soundfile.read(out if verb == "decode" else next(out.glob("*.wav")))[0])
    assert len(wavs[0]) == len(wavs[1]) and (wavs[0] != wavs[1]).any()
    capsys.readouterr()
    for wrong in ([], [f"--{token}", "mad"]):
        assert main(list(map(str, [*commands[verb], tmp_path / "x.wav", *wrong, *fixed]))) == 2
        error = capsys.readouterr().err
        assert f"the model has {', '.join(NAMES[token])}" in error and len(error.splitlines()) == 1


def test_what_a_manifest_says_of_each_utterance_is_spoken(commands, tmp_path, capsys):
    bundle = commands["convert"][3]
    rows = [
        {"audio": f"{n}.wav", "units": [1, 1, 2], "speaker": "anna", "style": "sad", "language": n}
        for n in NAMES["language"]
    ]
    (tmp_path / "in").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["synthesize", "--bundle", bundle, "--input", tmp_path / "in", "--outdir"]
    assert main(list(map(str, [*command, tmp_path / "out"]))) == 0
    first, second = (soundfile.read(tmp_path / "out" / f"{n}.wav")[0] for n in NAMES["language"])
    assert len(first) == len(second) == 480 and (first != second).any()
    (tmp_path / "in").write_text(json.dumps({**rows[0], "language": "xx"}) + "\n")
    assert main(list(map(str, [*command, tmp_path / "no"]))) == 2
    assert "de: language 'xx': the model has de, en." in capsys.readouterr().err
    assert main(list(map(str, [*command, tmp_path / "yes", "--language", "en"]))) == 0
    assert (soundfile.read(tmp_path / "yes" / "de.wav")[0] == second).all()


def test_token_strings_are_asked_whether_they_are_frames(commands, tmp_path, capsys):
    (tmp_path / "in").write_text("x|[Hu1][Hu2]\n")
    command = [
        "synthesize",
        *commands["convert"][2:4],
        "--input",
        tmp_path / "in",
        "--style",
        "sad",
    ]
    command += ["--target", "anna", "--language", "de", "--outdir"]
    assert main(list(map(str, [*command, tmp_path / "no"]))) == 2
    assert "give --dur-prediction to predict how long" in capsys.readouterr().err
    assert main(list(map(str, [*command, tmp_path / "a", "--no-dur-prediction"]))) == 0
    assert len(soundfile.read(tmp_path / "a" / "x.wav")[0]) == 320
    assert main(list(map(str, [*command, tmp_path / "b", "--dur-prediction"]))) == 0
    (tmp_path / "in").write_text("x|[Hu1][Hu1][Hu2]\n")
    assert main(list(map(str, [*command, tmp_path / "c"]))) == 0


def test_a_further_token_is_one_line(monkeypatch):
    monkeypatch.setitem(TOKENS, "mood", "mood")
    streams = StreamSpec(320, 10, tokens={"mood": ("gray", "red"), "style": ("calm",)})
    stored = streams.to_dict()
    assert stored["moods"] == ["gray", "red"] and StreamSpec.from_dict(stored) == streams
    model = build_vocoder(UnitHifiganSizes(embedding_dim=4, upsample_initial_channel=32), streams)
    decoder, units = UnitDecoder(model, streams), np.arange(4)[None]
    gray, red = (decoder.decode(units, mood=mood) for mood in ("gray", "red"))
    assert (gray != red).any()
    with pytest.raises(ValueError, match="--hue blue: needs a model with hues"):
        decoder.decode(units, mood="red", hue="blue")


def test_descriptions_made_before_languages_load():
    old = {**StreamSpec(320, 10).to_dict(), "styles": ["calm", "sad"]}
    assert StreamSpec.from_dict(old).tokens == {"style": ("calm", "sad")}
    assert StreamSpec.from_dict({**old, "styles": []}) == StreamSpec(320, 10)
