"""Export to fairseq's own CodeHiFiGANVocoder, loaded strictly by it; and import of such checkpoints."""

import json
import runpy
import sys
from argparse import Namespace

import numpy as np
import pytest
import soundfile
import torch
from fairseq.models.text_to_speech.vocoder import CodeHiFiGANVocoder
from published_checkpoints import make
from tiny_bundles import KINDS, SIZES, UNITS, write_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer


def export(kind, tmp_path):
    system = write_bundle(kind, tmp_path / "bundle")
    arguments = [tmp_path / "bundle", "--to", "code-hifigan", "--outdir", tmp_path / "out"]
    assert main(["export", *map(str, arguments)]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    return system, CodeHiFiGANVocoder(str(tmp_path / "out" / "model.pt"), config), config


def inputs(streams):
    """(ours, fairseq's) for the same speech."""
    ours, theirs = {"units": UNITS}, {"code": torch.from_numpy(UNITS)}
    if streams.speakers:
        ours["speaker"], theirs["spkr"] = "bob", torch.tensor([[1]])
    if streams.speaker_dim:
        ours["speaker"] = np.linspace(-1, 1, 6, dtype=np.float32)
        theirs["spkr"] = torch.from_numpy(ours["speaker"])[None, None]
    if streams.num_f0_codes:
        codes = np.array([[4, 2]])
        ours["f0_codes"] = codes
        theirs["f0"] = torch.from_numpy(codes.repeat(4, axis=1))
    if streams.f0_channels:
        f0 = np.random.default_rng(0).standard_normal((1, 32)).astype(np.float32)
        ours["f0"], theirs["f0"] = f0[None], torch.from_numpy(f0)
    return ours, theirs


@pytest.mark.parametrize("kind", KINDS)
def test_fairseqs_vocoder_says_the_same(kind, tmp_path):
    system, vocoder, config = export(kind, tmp_path)
    ours, theirs = inputs(system.streams)
    expected = system.decode(**ours)[0, 0]
    np.testing.assert_allclose(vocoder(dict(theirs)).numpy(), expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3
    assert ("dur_predictor_params" in config) == ("durations" in kind)
    assert config.get("num_speakers", 0) == len(system.streams.speakers)
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert list(state) == ["generator"]
    assert all(value.dtype == torch.float32 for value in state["generator"].values())


def test_durations_say_the_same(tmp_path):
    system, vocoder, _ = export("units, durations", tmp_path)
    collapsed = np.array([3, 1, 9, 0, 4, 7])
    theirs = vocoder({"code": torch.from_numpy(collapsed)[None]}, True).numpy()
    np.testing.assert_allclose(theirs, system.speak([UNITS[0]])[0], atol=1e-5)


def test_what_fairseq_cannot_have_is_said(tmp_path, capsys):
    export("units, speaker, own rhythm", tmp_path)
    assert (
        "the duration predictor is left out: it depends on the speaker" in capsys.readouterr().out
    )


def test_fairseqs_own_command(tmp_path, monkeypatch):
    system, _, _ = export("units, speaker, durations", tmp_path)
    (tmp_path / "codes").write_text("3 1 9 0 4 7\n5 2\n")
    out = tmp_path / "wavs"
    arguments = [
        "generate_waveform_from_code.py", "--in-code-file", str(tmp_path / "codes"),
        "--vocoder", str(tmp_path / "out" / "model.pt"), "--cpu", "--dur-prediction",
        "--vocoder-cfg", str(tmp_path / "out" / "config.json"), "--results-path", str(out),
        "--speaker-id", "2",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    module = "fairseq.examples.speech_to_speech.generate_waveform_from_code"
    runpy.run_module(module, run_name="__main__")
    said = system.speak([np.array([3, 1, 9, 0, 4, 7]), np.array([5, 2])], speaker="cid")
    for row, expected in enumerate(said):
        wav, rate = soundfile.read(out / f"{row}_spk2_pred.wav")
        assert rate == 16000
        np.testing.assert_allclose(wav, expected, atol=1e-4)  # written with 16 bits
    assert (tmp_path / "out" / "speakers.txt").read_text() == "ann\nbob\ncid\n"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_exported_comes_back(kind, tmp_path):
    system, _, _ = export(kind, tmp_path)
    arguments = ["--from", "code-hifigan", tmp_path / "out", "--outdir", tmp_path / "again"]
    assert main(["import", *map(str, arguments)]) == 0
    again = Resynthesizer.from_pretrained(tmp_path / "again")
    ours, _ = inputs(system.streams)
    np.testing.assert_allclose(again.decode(**ours), system.decode(**ours), atol=1e-6)
    assert again.streams.speakers == system.streams.speakers


def test_textlesslibs_speaker_and_style(tmp_path):
    streams = StreamSpec(
        320, 10, speakers=("ex01", "ex02"), tokens={"style": ("happy", "whisper", "sad")}
    )
    config = {"multispkr": "from_input_file", "num_speakers": 2, "model_in_dim": 24}
    config |= {"multistyle": "from_input_file", "num_styles": 3}
    folder, generator = make(tmp_path / "in", streams, config, file="model.pt")
    (folder / "speakers.txt").write_text("ex01\nex02\n")
    (folder / "styles.txt").write_text("happy\nwhisper\nsad\n")
    arguments = ["--from", "code-hifigan", folder, "--outdir", tmp_path / "out"]
    assert main(["import", *map(str, arguments)]) == 0
    system = Resynthesizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = generator(
            torch.from_numpy(UNITS), speaker=torch.tensor([1]), style=torch.tensor([2])
        )
    said = system.decode(UNITS, speaker="ex02", style="sad")
    np.testing.assert_allclose(said, expected, atol=1e-6)
    assert not np.allclose(said, system.decode(UNITS, speaker="ex02", style="happy"))
    with pytest.raises(ValueError, match="style 'angry': the model has happy, whisper, sad"):
        system.decode(UNITS, speaker="ex02", style="angry")


@pytest.mark.parametrize(
    "change,message",
    [
        ({"model_in_dim": 80}, "model_in_dim is 80, and its streams have 16"),
        (
            {"num_speakers": 200},
            "spkr.weight is \\(3, 8\\), the configuration makes it \\(200, 8\\)",
        ),
        ({"f0": True, "f0_quant_num_bin": 5}, "model_in_dim is 16, and its streams have 24"),
        ({"multispkr": None}, "model_in_dim is 16, and its streams have 8"),
    ],
)
def test_contradictions(change, message, tmp_path, capsys):
    import re

    export("units, speaker", tmp_path)
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (tmp_path / "out" / "speakers.txt").unlink()
    arguments = ["--from", "code-hifigan", tmp_path / "out", "--outdir", tmp_path / "again"]
    assert main(["import", *map(str, arguments)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "again").exists()


def test_dilations_that_fairseq_cannot_have(tmp_path, capsys):
    sizes = UnitHifiganSizes(**SIZES | {"resblock_dilation_sizes": "1,3"})
    streams = StreamSpec(320, 10)
    save_bundle(tmp_path / "bundle", Bundle(build_vocoder(sizes, streams), sizes, streams))
    arguments = [tmp_path / "bundle", "--to", "code-hifigan", "--outdir", tmp_path / "out"]
    assert main(["export", *map(str, arguments)]) == 2
    assert "fairseq's have three in each" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _seamless(folder, width=8):
    """Writes a small vocoder in Seamless' layout, [language | units | speaker]: (weights, its sound)."""
    from fairseq.models.text_to_speech.fastspeech2 import VariancePredictor
    from fairseq.models.text_to_speech.hifigan import Generator

    sizes = {
        "upsample_rates": [5, 4, 4, 2, 2],
        "upsample_kernel_sizes": [11, 8, 8, 4, 4],
        "upsample_initial_channel": 64,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    }
    torch.manual_seed(0)
    generator = Generator({**sizes, "model_in_dim": 4 + width + 6})
    predictor = {"encoder_embed_dim": width, "var_pred_hidden_dim": 6, "var_pred_kernel_size": 3}
    generator.dur_predictor = VariancePredictor(Namespace(**predictor, var_pred_dropout=0.5)).eval()
    generator.dur_predictor.proj.bias.data.fill_(1.5)
    tables = {"lang": torch.randn(3, 4), "dict": torch.randn(10, width), "spkr": torch.randn(7, 6)}
    state = {**{f"{k}.weight": v for k, v in tables.items()}, **generator.state_dict()}
    folder.mkdir()
    state = {f"code_generator.{name}": value for name, value in state.items()}
    torch.save({"model": state}, folder / "vocoder_v2.pt")
    names = {"multilingual": {"eng": 0, "fra": 1, "deu": 2}}
    names["multispkr"] = {"eng": [0], "fra": [2, 1], "deu": [3]}
    (folder / "config.json").write_text(json.dumps({**sizes, "lang_spkr_idx_map": names}))

    def speak(language, speaker):
        held = [tables["lang"][language], tables["spkr"][speaker]]
        language, speaker = (row[:, None].expand(-1, UNITS.shape[1]) for row in held)
        frames = torch.cat([language, tables["dict"][UNITS[0]].T, speaker])
        with torch.no_grad():
            repeats = generator.dur_predictor(tables["dict"][[3, 1, 9, 0, 4, 7]][None])
            return generator(frames[None]).numpy(), (repeats.exp() - 1).round().clamp(min=1)

    return state, speak


def test_seamless_languages_and_speakers(tmp_path, capsys):
    _, speak = _seamless(tmp_path / "in")
    arguments = ["--from", "code-hifigan", tmp_path / "in", "--outdir", tmp_path / "out"]
    assert main(["import", *map(str, arguments)]) == 0
    system = Resynthesizer.from_pretrained(tmp_path / "out")
    assert system.streams.tokens == {"language": ("eng", "fra", "deu")}
    assert system.streams.speakers == ("eng_0", "fra_1", "fra_0", "deu_0")
    said = system.decode(UNITS, speaker="fra_0", language="deu")
    expected, repeats = speak(2, 2)
    np.testing.assert_allclose(said, expected, atol=1e-6)
    (spoken,) = system.decoder.expand([UNITS[0]])
    assert len(spoken) == repeats.sum() > 12
    assert not np.allclose(said, system.decode(UNITS, speaker="fra_0", language="eng"))
    with pytest.raises(ValueError, match="language 'xxx': the model has eng, fra, deu"):
        system.decode(UNITS, speaker="fra_0", language="xxx")
    capsys.readouterr()
    export = ["export", tmp_path / "out", "--to", "code-hifigan", "--outdir", tmp_path / "no"]
    assert main(list(map(str, export))) == 2
    assert "the model has languages; fairseq's code HiFi-GAN has none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change,message",
    [
        (
            {"code_generator.spkr.weight": None},
            "is not readable as Seamless' vocoder: 'spkr.weight'",
        ),
        ({"code_generator.lang.weight": torch.zeros(3, 9)}, "an embedding has 9 channels, that of"),
        ({"code_generator.lang.weight": torch.zeros(3, 5)}, "is not readable as Seamless' vocoder"),
        ({"code_generator.film.weight": torch.zeros(3)}, "it has no place for the weight"),
    ],
)
def test_weights_that_do_not_fit_seamless(change, message, tmp_path, capsys):
    state, _ = _seamless(tmp_path / "in")
    state = {name: value for name, value in {**state, **change}.items() if value is not None}
    torch.save({"model": state}, tmp_path / "in" / "vocoder_v2.pt")
    arguments = ["--from", "code-hifigan", tmp_path / "in", "--outdir", tmp_path / "out"]
    assert main(["import", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
