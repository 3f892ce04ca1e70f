"""Snake in the HiFi-GAN generator: values, the fast layouts, checkpoints, bundles and graphs."""

import json
import math

import numpy as np
import pytest
import torch
from small_corpus import fairseq_train, train_arguments

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, load_bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.generators.hifigan import HifiganGenerator, HifiganSizes, Snake
from fairseq_resynth.modules.generators.inference import InferenceGenerator
from fairseq_resynth.resynthesizer import Resynthesizer

UNITS = np.array([[3, 3, 1, 9, 0, 4, 4, 7]])


def generator(activation="snake"):
    torch.manual_seed(0)
    made = HifiganGenerator(6, HifiganSizes("5,4", "11,8", 16, "3", "1,3", activation))
    for name, parameter in made.named_parameters():
        if name.endswith("log_alpha"):
            parameter.data.uniform_(-0.5, 1.5)
    return made


def test_hand_worked_values():
    snake = Snake(2)
    snake.log_alpha.data = torch.tensor([0.0, math.log(2)])
    x = torch.tensor([[[0.0, math.pi / 2], [1.0, -1.0]]])
    second = math.sin(2) ** 2 / 2
    expected = torch.tensor([[[0.0, math.pi / 2 + 1], [1 + second, -1 + second]]])
    torch.testing.assert_close(snake(x), expected)
    torch.testing.assert_close(snake(x[:, :, None])[:, :, 0], expected)


def test_each_channel_learns_its_period():
    snake = Snake(3)
    snake(torch.ones(1, 3, 4)).sum().backward()
    assert (snake.log_alpha.grad != 0).all()


def test_sixteen_bits_take_the_sine_in_float32():
    snake, x = Snake(1), torch.tensor([[[31.25, 8.5]]])  # exact in bfloat16
    found = snake.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, snake.float()(x).bfloat16())


def test_leaky_relu_is_as_before():
    names = [name for name, _ in generator("leaky-relu").named_parameters()]
    assert not any("activation" in name for name in names)
    assert sum(name.endswith("log_alpha") for name in dict(generator().named_parameters())) == 11


def test_inference_layouts_and_padding():
    made, folded, frames = generator().eval(), generator().eval(), torch.randn(2, 6, 9)
    folded.load_state_dict(made.state_dict())
    folded.remove_weight_norm()
    with torch.no_grad():
        check_layouts(made, folded, frames)


def check_layouts(made, folded, frames):
    lengths = torch.tensor([5, 9])
    expected = made(frames, lengths)
    torch.testing.assert_close(expected[:1, :, :100], made(frames[:1, :, :5]), atol=1e-6, rtol=0)
    assert not expected[0, 0, 100:].any()
    fast = InferenceGenerator(folded)
    torch.testing.assert_close(fast(frames, lengths), expected, atol=1e-5, rtol=1e-4)
    low = InferenceGenerator(folded, "bfloat16")(frames, lengths)
    assert (low - expected).abs().max() < 0.05 * expected.abs().max() + 0.01


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="--activation is 'relu', expected leaky-relu or snake"):
        generator("relu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snake") / "bundle"
    sizes = UnitHifiganSizes(
        embedding_dim=8, upsample_initial_channel=32, resblock_kernel_sizes="3",
        resblock_dilation_sizes="1,3,5", activation="snake",
    )  # fmt: skip
    streams = StreamSpec(320, 10)
    torch.manual_seed(7)
    save_bundle(folder, Bundle(build_vocoder(sizes, streams).eval(), sizes, streams))
    return folder


def test_bundle_keeps_it(bundle):
    assert json.loads((bundle / "config.json").read_text())["model"]["activation"] == "snake"
    loaded = load_bundle(bundle)
    assert isinstance(loaded.generator.generator.activations[0], Snake)


def test_bundles_from_before_the_option_load(bundle, tmp_path):
    sizes, streams = UnitHifiganSizes(upsample_initial_channel=32), StreamSpec(320, 10)
    save_bundle(tmp_path, Bundle(build_vocoder(sizes, streams).eval(), sizes, streams))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model"]["activation"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_bundle(tmp_path).model.activation == "leaky-relu"


def test_onnx_speaks_alike(bundle, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(bundle), "--to", "onnx", "--outdir", str(tmp_path)]) == 0
    session = runtime.InferenceSession(tmp_path / "generator.onnx")
    expected = Resynthesizer.from_pretrained(bundle).decode(units=UNITS)
    np.testing.assert_allclose(session.run(None, {"units": UNITS})[0], expected, atol=1e-4)


def test_code_hifigan_is_refused(bundle, tmp_path, capsys):
    words = ["export", str(bundle), "--to", "code-hifigan", "--outdir", str(tmp_path / "out")]
    assert main(words) == 2
    assert "activation is snake; fairseq's is leaky-relu" in capsys.readouterr().err


def test_training_and_its_checkpoint(tiny_data, tmp_path):
    options = ["--activation", "snake", "--max-update", 2, "--disable-validation"]
    fairseq_train(*train_arguments(tiny_data, tmp_path, *options))
    system = Resynthesizer.from_checkpoint(tmp_path / "checkpoint_last.pt")
    snakes = [m for m in system.bundle.generator.modules() if isinstance(m, Snake)]
    assert snakes and any(snake.log_alpha.any() for snake in snakes)
