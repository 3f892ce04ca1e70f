"""Units at 25 Hz from a folder of transformers to vocoders that others load: fairseq's own, and one that is
built here by the conventions of textlesslib's and slamkit's `CodeHiFiGANVocoder`."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.models.text_to_speech.vocoder import CodeHiFiGANVocoder
from small_corpus import MHUBERT, SPEECH, fairseq_train, train_arguments
from tiny_bundles import SIZES, UNITS

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.data.streams import StreamSpec, read_streams
from fairseq_resynth.encoders.content import build_encoder
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.resynthesizer import Resynthesizer

transformers = pytest.importorskip("transformers")


class TextlessVocoder:
    """Loads `model.pt`, `config.json` and the names of rows as textlesslib and slamkit do.

    Codes are (1, U) with negative ones left out, speakers and styles are numbers, conditions that are not
    given are row 0, and the number of a condition is repeated for all frames. Every weight must be used.
    """

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.state = torch.load(folder / "model.pt", weights_only=True)["generator"]
        names = folder / "speakers.txt"
        self.speakers = names.read_text().splitlines() if names.exists() else None
        self.unused = set(self.state)

    def _layer(self, name):
        bias = self._take(f"{name}.bias")
        if f"{name}.weight" in self.state:
            return self._take(f"{name}.weight"), bias
        direction = self._take(f"{name}.weight_v")
        size = direction.flatten(1).norm(dim=1)[:, None, None]
        return self._take(f"{name}.weight_g") * direction / size, bias

    def _take(self, name):
        self.unused.discard(name)
        return self.state[name]

    def _durations(self, x):
        for number in (1, 2):
            x = F.relu(F.conv1d(x, *self._layer(f"dur_predictor.conv{number}.0"), padding=1))
            norm = self._layer(f"dur_predictor.ln{number}")
            x = F.layer_norm(x.transpose(1, 2), x.shape[1:2], *norm).transpose(1, 2)
        log_durations = F.linear(x.transpose(1, 2), *self._layer("dur_predictor.proj"))
        return (log_durations.exp() - 1).round().long().clamp(min=1).flatten()

    def __call__(self, code, speaker_id=0, style_id=0, f0=None, dur_prediction=False):
        x = F.embedding(code[code >= 0][None], self._take("dict.weight")).transpose(1, 2)
        if self.config.get("dur_predictor_params") and dur_prediction:
            x = x.repeat_interleave(self._durations(x), dim=2)
        if self.config.get("f0"):
            f0 = F.embedding(f0, self._take("f0_quant_embed.weight")).transpose(1, 2)
            x = x.repeat_interleave(f0.size(2) // x.size(2), dim=2)
            x = torch.cat([x, f0], dim=1)
        for flag, table, row in (
            ("multispkr", "spkr", speaker_id),
            ("multistyle", "style", style_id),
        ):
            if self.config.get(flag):
                value = self._take(f"{table}.weight")[row]
                x = torch.cat([x, value[None, :, None].expand(-1, -1, x.size(2))], dim=1)
        return self._generate(x).flatten()

    def _generate(self, x):
        config = self.config
        x = F.conv1d(x, *self._layer("conv_pre"), padding=3)
        rates = zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True)
        for stage, (rate, kernel) in enumerate(rates):
            x, padding = F.leaky_relu(x, 0.1), (kernel - rate) // 2
            x = F.conv_transpose1d(x, *self._layer(f"ups.{stage}"), rate, padding)
            blocks = len(config["resblock_kernel_sizes"])
            x = (
                sum(self._block(x, stage * blocks + block, block) for block in range(blocks))
                / blocks
            )
        return torch.tanh(F.conv1d(F.leaky_relu(x), *self._layer("conv_post"), padding=3))

    def _block(self, x, number, kind):
        kernel = self.config["resblock_kernel_sizes"][kind]
        for index, dilation in enumerate(self.config["resblock_dilation_sizes"][kind]):
            residual = x
            for name, spread in (("convs1", dilation), ("convs2", 1)):
                weights = self._layer(f"resblocks.{number}.{name}.{index}")
                padding = spread * (kernel - 1) // 2
                x = F.conv1d(F.leaky_relu(x, 0.1), *weights, padding=padding, dilation=spread)
            x = x + residual
        return x


def run(*arguments):
    assert main([str(word) for word in arguments]) == 0


@pytest.fixture(scope="module")
def mhubert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mhubert")
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**MHUBERT)).eval()
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("samples", [719, 720, 1359, 1360, 16000, 16079])
def test_25_hz_from_a_local_folder(samples, mhubert):
    folder, model = mhubert
    encoder = build_encoder("hf", folder, 2)
    assert (encoder.unit_hop, encoder.min_samples) == (640, 720)
    assert encoder.num_frames(samples) == max(0, (samples - 80) // 640)
    if samples >= encoder.min_samples:
        wav = torch.sin(torch.arange(samples) / 9)
        with torch.inference_mode():
            expected = model(wav[None], output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(encoder.features([wav])[0], expected, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def trained(mhubert, tmp_path_factory):
    """A bundle of 25 Hz units, made by the commands from the folder of transformers."""
    out = tmp_path_factory.mktemp("lowrate")
    for clip in sorted((SPEECH / "english").glob("*.flac"))[:6]:
        (out / "audio" / "ann").mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, out / "audio" / "ann")
    data, km, content = out / "data", out / "km.safetensors", ["--content-checkpoint", mhubert[0]]
    run(
        "manifest",
        out / "audio",
        "--outdir",
        data,
        "--speaker-from",
        "parent",
        "--valid-percent",
        20,
    )
    kind = ["--feature-type", "hf", *content, "--layer", 2]
    run("kmeans", data, *kind, "--num-clusters", 6, "--out", km)
    run("quantize", data, *kind, "--kmeans", km)
    arguments = train_arguments(
        data, out / "checkpoints", "--max-update", 2, "--duration-predictor"
    )
    arguments += ["--duration-condition", "none", "--resblock-dilation-sizes", "1,3,5"]
    fairseq_train(*arguments, "--disable-validation")
    checkpoint = out / "checkpoints" / "checkpoint_last.pt"
    run("export", checkpoint, "--kmeans", km, "--outdir", out / "bundle")
    return out


def test_a_trained_vocoder_of_25_hz_units_loads_elsewhere(trained, mhubert):
    units = read_json(trained / "data" / "units.json")
    assert (units["unit_hop"], units["feature_type"]) == (640, "hf")
    run("export", trained / "bundle", "--to", "code-hifigan", "--outdir", trained / "theirs")
    config = read_json(trained / "theirs" / "config.json")
    assert config["code_hop_size"] == 640
    assert config["upsample_rates"] == [5, 4, 4, 4, 2]
    assert config["upsample_kernel_sizes"] == [11, 8, 8, 8, 4]
    system = Resynthesizer.from_pretrained(trained / "bundle", mhubert[0])
    clip = next((trained / "audio" / "ann").glob("*.flac"))
    speech = system.encode(clip, "ann")
    codes, expected = torch.from_numpy(speech.units)[None], system.decode(speech.units[None])[0, 0]
    assert len(expected) == len(speech.units) * 640 and np.abs(expected).max() > 1e-3
    fairseqs = CodeHiFiGANVocoder(str(trained / "theirs" / "model.pt"), config)
    found = fairseqs({"code": codes, "spkr": torch.tensor([[0]])})
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    textless = TextlessVocoder(trained / "theirs")
    assert textless.speakers == ["ann"]
    np.testing.assert_allclose(textless(codes).numpy(), expected, atol=1e-5)
    # slamkit predicts the durations of units without repeats whenever the model can
    collapsed = torch.unique_consecutive(codes)[None]
    said = system.speak([speech.units], speaker="ann")[0]
    np.testing.assert_allclose(textless(collapsed, dur_prediction=True).numpy(), said, atol=1e-5)
    assert not textless.unused


@pytest.mark.slow
@pytest.mark.parametrize("f0_code_hop", [320, 640])
def test_the_codec_at_25_hz_with_pitch_codes_as_fine_as_the_units_or_finer(
    f0_code_hop, trained, mhubert, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(trained / "data", data)
    run("f0", data, "--method", "dio")
    quantile = ["--f0-representation", "quantile", "--f0-bins", 8]
    finer = [] if f0_code_hop == 640 else ["--f0-code-hop", f0_code_hop]
    run("quantize-f0", data, *quantile, *finer)
    streams, sizes = read_streams(data), UnitHifiganSizes(**SIZES)
    assert (streams.unit_hop, streams.f0_code_hop) == (640, f0_code_hop)
    generator = build_vocoder(sizes, streams)
    bundle = Bundle(generator, sizes, streams, kmeans=trained / "km.safetensors")
    save_bundle(tmp_path / "bundle", bundle)
    entropy = tmp_path / "bundle" / "entropy.safetensors"
    run("fit-codec", data, "--network", 0, "--out", entropy)
    codec = SpeechCodec.from_pretrained(tmp_path / "bundle", mhubert[0])
    clip = next((trained / "audio" / "ann").glob("*.flac"))
    speech, wav = codec.resynthesizer.encode(clip, "ann"), codec.resynthesizer.waveform(clip)
    assert len(speech.f0_codes) == len(speech.units) * 640 // f0_code_hop
    expected = codec.resynthesizer.decode(speech.units[None], speech.f0_codes[None], "ann")[0, 0]
    found = codec.decode(codec.encode(clip, "ann"))
    np.testing.assert_allclose(found[: len(expected)], expected[: len(found)], atol=1e-5)
    data = codec.encode_blocks(wav, "ann")
    pieces = [data[start : start + 7] for start in range(0, len(data), 7)]
    streamed = np.concatenate(list(codec.decode_stream(pieces)))
    np.testing.assert_allclose(streamed, codec.decode(data), atol=1e-5)
    assert len(codec.decode(data, rate=0.5)) == pytest.approx(2 * len(wav), abs=1)


@pytest.mark.parametrize("unit_hop,f0_code_hop", [(640, 1280), (480, 320)])
def test_f0_codes_and_names_at_low_rates_load_elsewhere(unit_hop, f0_code_hop, tmp_path, capsys):
    streams = StreamSpec(unit_hop, 10, f0_code_hop, 5, ("ann", "bob"))
    sizes = UnitHifiganSizes(**SIZES)
    torch.manual_seed(7)
    save_bundle(tmp_path / "bundle", Bundle(build_vocoder(sizes, streams), sizes, streams))
    run("export", tmp_path / "bundle", "--to", "code-hifigan", "--outdir", tmp_path / "out")
    system = Resynthesizer.from_pretrained(tmp_path / "bundle")
    frame = system.bundle.generator.generator.hop
    repeats, frames = f0_code_hop // frame, UNITS.size * unit_hop // frame
    note = f"rate of the frames: repeat each {repeats} times"
    assert (note in capsys.readouterr().out) == (repeats > 1)
    f0_codes = np.arange(-(-frames // repeats))[None] % 5
    expected = system.decode(UNITS, f0_codes, "bob")[0, 0]
    f0 = torch.from_numpy(f0_codes.repeat(repeats, axis=1)[:, :frames])
    codes = torch.from_numpy(UNITS)
    np.testing.assert_allclose(
        TextlessVocoder(tmp_path / "out")(codes, 1, f0=f0), expected, atol=1e-5
    )
    config = read_json(tmp_path / "out" / "config.json")
    fairseqs = CodeHiFiGANVocoder(str(tmp_path / "out" / "model.pt"), config)
    found = fairseqs({"code": codes, "f0": f0, "spkr": torch.tensor([[1]])})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    run("import", "--from", "code-hifigan", tmp_path / "out", "--outdir", tmp_path / "again")
    again = Resynthesizer.from_pretrained(tmp_path / "again")
    assert (again.streams.unit_hop, again.streams.f0_code_hop) == (unit_hop, f0_code_hop)
    np.testing.assert_allclose(again.decode(UNITS, f0_codes, "bob")[0, 0], expected, atol=1e-6)


def test_durations_that_fairseq_would_pad_wrongly(tmp_path, capsys):
    sizes = UnitHifiganSizes(**SIZES, duration_predictor=True, duration_kernel_size=5)
    streams = StreamSpec(640, 10)
    save_bundle(tmp_path / "bundle", Bundle(build_vocoder(sizes, streams), sizes, streams))
    arguments = [tmp_path / "bundle", "--to", "code-hifigan", "--outdir", tmp_path / "out"]
    assert main(["export", *map(str, arguments)]) == 2
    assert "kernel is 5; fairseq's pads for 3 alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
