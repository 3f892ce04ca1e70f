"""resynth import --from speech-resynthesis: stored outputs, every variant, every wrong input."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from published_checkpoints import CONFIG, FRAME_80, golden, golden_io, make, old_names

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import load_bundle
from fairseq_resynth.inference.checkpoints import load_f0_quantizer
from fairseq_resynth.interop.speech_resynthesis import import_speech_resynthesis
from fairseq_resynth.resynthesizer import Resynthesizer


def do_import(folder, out, *options, source="speech-resynthesis"):
    return main(["import", "--from", source, str(folder), "--outdir", str(out), *map(str, options)])


def take(folder, out, *options, **kwargs):
    assert do_import(folder, out, *options, **kwargs) == 0
    return Resynthesizer.from_pretrained(out)


def test_a_quantizer_inside_that_the_configuration_does_not_describe(tmp_path):
    folder = golden("vctk_hubert100_lut_small", tmp_path / "in")
    _config("f0_quantizer")(folder)
    system = take(folder, tmp_path / "out")
    io = golden_io("vctk_hubert100_lut_small")
    codes = system.bundle.f0_vqvae.encode(torch.from_numpy(io["f0"])).numpy()
    assert np.array_equal(codes, io["f0_codes"])


@pytest.mark.parametrize("folder", ["vctk_hubert100_lut_small", "lj_cpc100_lut_small"])
def test_stored_outputs_with_the_f0_quantizer_inside(folder, tmp_path):
    system = take(golden(folder, tmp_path / "in"), tmp_path / "out")
    io = golden_io(folder)
    codes = system.bundle.f0_vqvae.encode(torch.from_numpy(io["f0"])).numpy()
    assert np.array_equal(codes, io["f0_codes"])
    wav = system.decode(io["units"], codes, io["speaker"][:, 0].tolist())
    np.testing.assert_allclose(wav, io["wav"], atol=1e-5)
    by_name = system.decode(io["units"], codes, [str(i) for i in io["speaker"][:, 0]])
    assert np.array_equal(wav, by_name)


def test_stored_outputs_of_durations(tmp_path):
    system = take(golden("hubert100_duration_small", tmp_path / "in"), tmp_path / "out")
    io = golden_io("hubert100_duration_small")
    np.testing.assert_allclose(system.decode(io["units"]), io["wav"], atol=1e-5)
    said = system.speak([io["units"][0]])[0]
    np.testing.assert_allclose(said, io["wav_dur_prediction"][0, 0], atol=1e-5)
    faster = system.speak([io["units"][0]], rate=2.0)[0]
    assert 0.4 < len(faster) / len(said) < 0.6


def test_stored_outputs_of_the_f0_quantizer(tmp_path):
    assert do_import(golden("f0_quantizer", tmp_path / "in"), tmp_path / "out") == 0
    io = golden_io("f0_quantizer")
    f0_vqvae = load_f0_quantizer(tmp_path / "out")
    with torch.no_grad():
        reconstructed, codes, commitment = f0_vqvae(torch.from_numpy(io["f0"]))
    assert np.array_equal(codes.numpy(), io["f0_codes"])
    np.testing.assert_allclose(reconstructed.numpy(), io["f0_reconstructed"], atol=1e-5)
    assert float(commitment) == pytest.approx(float(io["commit_loss"]), abs=1e-5)
    with pytest.raises(ValueError, match="only an F0 quantizer"):
        Resynthesizer.from_pretrained(tmp_path / "out")


def test_units_alone_at_160_samples(tmp_path):
    sizes = {"upsample_rates": [5, 4, 2, 2, 2], "upsample_kernel_sizes": [11, 8, 4, 4, 4]}
    config = {**sizes, "code_hop_size": 160, "input_training_file": "LJSpeech/vqvae256/train.txt"}
    config["num_embeddings"] = 256
    folder, generator = make(tmp_path / "in", StreamSpec(160, 256), config)
    system = take(folder, tmp_path / "out")
    units = np.arange(250, 256)[None]
    with torch.no_grad():
        expected = generator(torch.from_numpy(units)).numpy()
    np.testing.assert_allclose(system.decode(units), expected, atol=1e-6)
    assert system.streams.units["feature_type"] == "vqvae"


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "_orig_mod.", ""])
def test_names_of_wrapped_models_and_bare_weights(prefix, tmp_path):
    folder, generator = make(tmp_path / "in", StreamSpec(320, 10), {"code_hop_size": 320})
    weights = torch.load(folder / "g_00000100")["generator"]
    state = {prefix + name: value for name, value in weights.items()}
    torch.save({"generator": state} if prefix else state, folder / "g_00000100")
    units = torch.arange(5)[None]
    with torch.no_grad():
        expected = generator(units).numpy()
    system = take(folder, tmp_path / "out")
    np.testing.assert_allclose(system.decode(units.numpy()), expected, atol=1e-6)


def test_raw_normalized_f0(tmp_path):
    streams = StreamSpec(320, 10, f0_channels=1, speakers=tuple("abcd"))
    config = {**FRAME_80, "f0": True, "f0_normalize": True, "multispkr": "_", "num_speakers": 4}
    folder, generator = make(tmp_path / "in", streams, config | {"model_in_dim": 17})
    (tmp_path / "names").write_text("ann\nbob\ncid\n")
    torch.save({"f0_mean": np.float64(209.0), "f0_std": np.float64(58.5)}, tmp_path / "stats.pth")
    options = ("--speakers", tmp_path / "names", "--f0-stats", tmp_path / "stats.pth")
    system = take(folder, tmp_path / "out", *options)
    assert system.streams.speakers == ("ann", "bob", "cid")  # the fourth row has no name: cut
    f0 = np.random.default_rng(0).standard_normal((1, 1, 24)).astype(np.float32)
    units = np.array([[1, 2, 3, 9, 0, 4]])
    with torch.no_grad():
        expected = generator(
            torch.from_numpy(units), f0=torch.from_numpy(f0), speaker=torch.tensor([1])
        )
    np.testing.assert_allclose(system.decode(units, speaker="bob", f0=f0), expected, atol=1e-6)
    assert system.statistics.normalize(np.array([267.5, 0]), "cid").tolist() == [1.0, 0.0]


def test_speaker_vectors_of_the_fork(tmp_path):
    folder, generator = make(
        tmp_path / "in", StreamSpec(320, 10, speaker_dim=6), {"model_in_dim": 16}
    )
    system = take(folder, tmp_path / "out")
    vector = np.linspace(-1, 1, 6, dtype=np.float32)
    units = np.array([[1, 2, 3]])
    with torch.no_grad():
        expected = generator(torch.from_numpy(units), speaker=torch.from_numpy(vector)[None])
    np.testing.assert_allclose(system.decode(units, speaker=vector), expected, atol=1e-6)


def test_raw_audio_vqvae_makes_its_own_units(tmp_path):
    sizes = {"upsample_rates": [5, 4, 2, 2, 2], "upsample_kernel_sizes": [11, 8, 4, 4, 4]}
    encoder = {"downs_t": [[5, 1]], "strides_t": [[2, 5]], "width": 4}
    config = {**sizes, "code_hop_size": 160, "num_embeddings": 100, "code_encoder_params": encoder}
    folder, generator = make(tmp_path / "in", StreamSpec(160, 16), config)
    path = folder / "g_00000100"
    weights = torch.load(path)["generator"]
    weights |= _code_encoder(weights.pop("dict.weight"), [4, 4, 4, 4, 4, 11])
    torch.save({"generator": weights}, path)
    system = take(folder, tmp_path / "out")
    wav = np.random.default_rng(1).standard_normal(1650).astype(np.float32) * 0.1
    speech = system.encode(wav)
    assert len(speech.units) == 10 and speech.units.max() < 16
    with torch.no_grad():
        expected = generator(torch.from_numpy(speech.units)[None]).numpy()
    np.testing.assert_allclose(system.decode(speech.units[None]), expected, atol=1e-6)


def _code_encoder(codebook, kernels, width=4):
    torch.manual_seed(0)
    weights = {"code_vq.level_blocks.0.k": codebook}
    prefix = "code_encoder.level_blocks.0.model"
    for stage, kernel in enumerate(kernels):
        weights[f"{prefix}.{stage}.0.weight"] = torch.randn(width, width if stage else 1, kernel)
        weights[f"{prefix}.{stage}.0.bias"] = torch.randn(width)
        for block in range(4):
            for layer, size in ((1, 3), (3, 1)):
                name = f"{prefix}.{stage}.1.model.{block}.model.{layer}"
                weights[f"{name}.weight"] = 0.1 * torch.randn(width, width, size)
                weights[f"{name}.bias"] = torch.zeros(width)
    weights[f"{prefix}.{len(kernels)}.weight"] = torch.randn(codebook.size(1), width, 3)
    weights[f"{prefix}.{len(kernels)}.bias"] = torch.zeros(codebook.size(1))
    return weights


def test_f0_statistics_by_index_and_of_another_list(tmp_path, capsys):
    folder = golden("vctk_hubert100_lut_small", tmp_path / "in")
    entries = {i: {"f0_mean": np.float64(100.0 + i), "f0_std": np.float32(10)} for i in range(4)}
    torch.save(entries, folder / "f0_stats.th")  # where config.json says
    (tmp_path / "names").write_text("p1\np2\np3\np4\n")
    assert do_import(folder, tmp_path / "out", "--speakers", tmp_path / "names") == 0
    statistics = SpeakerStatistics.load(tmp_path / "out" / "speakers.json")
    assert statistics.speakers["p3"]["f0_mean"] == 102.0
    assert load_bundle(tmp_path / "out").generator.speaker_embedding.num_embeddings == 4
    (tmp_path / "names").write_text("p1\np2\np4\n")
    assert do_import(folder, tmp_path / "no", "--speakers", tmp_path / "names") == 2
    assert "made for another list" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    (tmp_path / "listed").write_text("p1\np2\np3\np4\n")  # whom the statistics were made for
    options = ("--speakers", tmp_path / "names", "--f0-stats-speakers", tmp_path / "listed")
    assert do_import(folder, tmp_path / "yes", *options) == 0
    statistics = SpeakerStatistics.load(tmp_path / "yes" / "speakers.json")
    assert statistics.speakers["p4"]["f0_mean"] == 103.0 and "p3" not in statistics.speakers


def test_speakers_of_the_training_list(tmp_path, capsys):
    folder = golden("vctk_hubert100_lut_small", tmp_path / "in")
    lines = [{"audio": f"x/{name}_001.wav", "hubert": "1"} for name in ("p9", "p10", "p9", "p2")]
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    system = take(folder, tmp_path / "out", "--training-list", tmp_path / "train.txt")
    assert system.streams.speakers == ("p10", "p2", "p9")  # sorted as text, as the original does
    folder = golden("lj_cpc100_lut_small", tmp_path / "lj")
    system = take(folder, tmp_path / "one", "--training-list", tmp_path / "train.txt")
    assert system.streams.speakers == ("single",)
    io = golden_io("lj_cpc100_lut_small")
    assert system.decode(io["units"], io["f0_codes"]).shape == io["wav"].shape


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/was_run",)


def _truncate(folder):
    path = folder / "g_00000010"
    path.write_bytes(path.read_bytes()[:5000])


def _hostile(folder):
    torch.save({"generator": Runs()}, folder / "g_00000010")


def _hostile_statistics(folder):
    (folder / "f0_stats.th").write_bytes(pickle.dumps({"f0_mean": Runs()}))


def _foreign(folder):
    torch.save({"model": {}, "cfg": None}, folder / "g_00000010")


def _weights(**changes):
    def change(folder):
        state = torch.load(folder / "g_00000010")
        for name, value in changes.items():
            name = name.replace("__", ".")
            if value is None:
                del state["generator"][name]
            else:
                state["generator"][name] = value
        torch.save(state, folder / "g_00000010")

    return change


def _config(*removed, **changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {key: value for key, value in config.items() if key not in removed}
        (folder / "config.json").write_text(json.dumps(config))

    return change


BAD = {
    "truncated": (_truncate, "not readable as a checkpoint"),
    "hostile": (_hostile, "holds (posix|os).system, which .* nothing in it was run"),
    "hostile statistics": (_hostile_statistics, "f0_stats.th (holds|is not readable)"),
    "foreign": (_foreign, "has no `generator`; found model, cfg"),
    "not a tensor": (_weights(dict__weight=[1, 2]), "dict.weight is a list, expected a tensor"),
    "diverged": (
        _weights(conv_post__bias=torch.tensor([np.nan])),
        "conv_post.bias has values that are NaN or infinite",
    ),
    "weight missing": (_weights(conv_post__bias=None), "1 weights are missing, .*conv_post.bias"),
    "codebook missing": (_weights(quantizer__vq__level_blocks__0__k=None), "no codebook"),
    "more units": (_config(num_embeddings=99), r"dict.weight is \(100, 128\), .*\(99, 128\)"),
    "no F0": (_config(f0=False), "model_in_dim is 384, and its streams have 256"),
    "no F0, narrower": (
        _config(f0=False, model_in_dim=256),
        r"conv_pre.weight_v is \(32, 384, 7\), .*\(32, 256, 7\)",
    ),
    "wrong hop": (_config(code_hop_size=160), "code_hop_size is 160 .* multiply to 320"),
    "a key missing": (_config("upsample_rates"), "lacks upsample_rates"),
    "other blocks": (_config(resblock="2"), "resblock is '2'"),
    "other rate": (_config(sampling_rate=22050), "sampling_rate is 22050"),
    "other F0 encoder": (_config(f0_quantizer={"f0_vq_params": {}}), "lacks 'f0_encoder_params'"),
    "durations promised": (
        _config(dur_predictor_params={"var_pred_hidden_dim": 128}),
        "weights are missing, duration_predictor",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "broken configuration": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "no checkpoint": (lambda folder: (folder / "g_00000010").unlink(), "holds no g_"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_one_sentence_and_writes_nothing(case, tmp_path, capsys):
    change, message = BAD[case]
    folder = golden("vctk_hubert100_lut_small", tmp_path / "in")
    change(folder)
    assert do_import(folder, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "streams,message",
    [
        ({"units": [[100]]}, "the model has 0 to 99"),
        ({"f0_codes": [[20]]}, "the model has 0 to 19"),
        ({"speaker": "p999"}, "unknown speaker 'p999'"),
        ({"units": [[1] * 9], "f0_codes": [[1, 2]]}, "covers 8 of 9 frames"),
        ({"f0_codes": None}, "none was given"),
    ],
)
def test_wrong_streams(streams, message, golden_system):
    given = {"units": [[1, 2]], "f0_codes": [[3]], "speaker": "3"} | streams
    with pytest.raises(ValueError, match=message):
        golden_system.decode(
            np.array(given["units"]),
            None if given["f0_codes"] is None else np.array(given["f0_codes"]),
            given["speaker"],
        )


@pytest.fixture(scope="module")
def golden_system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    return take(golden("vctk_hubert100_lut_small", folder / "in"), folder / "out")


def test_the_newest_checkpoint_counts(tmp_path):
    folder, _ = make(tmp_path / "in", StreamSpec(320, 10), {})
    _, newer = make(tmp_path / "other", StreamSpec(320, 10), {}, file="g_00000200")
    newer.unit_embedding.weight.data.fill_(0.25)
    torch.save({"generator": old_names(newer, 1, "")}, folder / "g_00000200")
    assert do_import(folder, tmp_path / "out") == 0
    assert (load_bundle(tmp_path / "out").generator.unit_embedding.weight == 0.25).all()
    assert CONFIG["num_embeddings"] == 10


KEYS = (
    *("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "num_embeddings"),
    *("resblock_kernel_sizes", "resblock_dilation_sizes", "embedding_dim", "model_in_dim"),
    *("code_hop_size", "f0", "multispkr", "num_speakers", "f0_stats", "f0_quantizer", "multistyle"),
    *("dur_predictor_params", "sampling_rate", "code_encoder_params"),
)


@pytest.mark.parametrize("key", KEYS)
def test_no_configuration_ends_in_a_traceback(key, tmp_path):
    """A key with values that make no sense: it is imported all the same, or refused in a sentence."""
    folder, _ = make(tmp_path / "in", StreamSpec(320, 10), {})
    for value in (None, "x", -1, 0, 3.5, [], {}, ["a"], [[1]], True, {"width": "x"}):
        (folder / "config.json").write_text(json.dumps(CONFIG | {key: value}))
        try:
            bundle = import_speech_resynthesis(folder)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert bundle.streams.num_units == 10
