"""Export to fairseq's own CodeHiFiGANVocoder, loaded strictly by it; and import of such checkpoints."""

import json
import runpy
import sys

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
