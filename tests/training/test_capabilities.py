"""What the processor or torch's build cannot do is said before training; --compile trains the same."""

import pytest
import torch
from test_gan_step import batches, build_trainer

from fairseq_resynth.modules.generators.inference import slow_bfloat16
from fairseq_resynth.tasks.training_checks import check_compiler, check_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """Sets what the processor seems to have."""

    def pretend(capability, amx=False, avx512_bf16=False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return pretend


def test_slow_bfloat16_is_said_before_training(processor, tiny_data, tmp_path, caplog):
    processor("AVX2")
    build_trainer(tiny_data, tmp_path, "--autocast", "bfloat16")
    (said,) = [r.getMessage() for r in caplog.records if "--autocast" in r.getMessage()]
    assert "no AVX-512" in said and "tens of times longer" in said
    assert said.endswith("Use --autocast float32.")


def test_bfloat16_by_processor(processor):
    processor("AVX512")
    assert "no faster" in slow_bfloat16(CPU)
    assert slow_bfloat16(CUDA) is None
    for extension in ("amx", "avx512_bf16"):
        processor("AVX512", **{extension: True})
        assert slow_bfloat16(CPU) is None


def test_a_gpu_without_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old Card")
    with pytest.raises(ValueError, match="Old Card cannot compute it. Use --autocast float32"):
        check_precision(CUDA, "bfloat16")
    check_precision(CUDA, "float32")


def test_a_missing_compiler_is_said_before_training(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.raises(ValueError, match="no-such-compiler' does not exist.* Leave --compile out"):
        build_trainer(tiny_data, tmp_path, "--compile")


def test_a_torch_that_cannot_compile_is_said_before_training(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("\nTriton is missing\nlong trace")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with pytest.raises(ValueError, match="fails on cpu: Triton is missing. Leave --compile out"):
        check_compiler(CPU)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["alternate", "simultaneous"])
def test_compiled_training_stays_near(order, tiny_data, tmp_path, caplog):
    """Four updates: the first equal to the last digit logged, the others within 5e-4; the same names in a
    checkpoint, validation as written."""
    caplog.set_level("INFO", logger="fairseq_resynth")
    logs, names = [], []
    for extra in ([], ["--compile"]):
        trainer = build_trainer(tiny_data, tmp_path, "--gan-update", order, *extra)
        samples = list(batches(trainer, 2))[:4]
        logs.append([trainer.train_step([sample]) for sample in samples])
        with torch.compiler.set_stance("fail_on_recompile"):
            valid = trainer.task.dataset("train").collater([trainer.task.dataset("train")[0]])
            logs[-1].append(trainer.valid_step(valid))
        networks = (trainer.model, trainer.criterion)
        names.append([list(network.state_dict()) for network in networks])
    assert names[0] == names[1]
    for update, (plain, compiled) in enumerate(zip(*logs, strict=True)):
        for name in ("loss", "mel", "adv_g", "fm", "loss_d", "gnorm_d"):
            assert (name in plain) == (name in compiled)
            # Logs have four decimals. Adam's first steps turn rounding of tiny gradients into whole steps.
            near = pytest.approx(compiled.get(name, 0), rel=5e-4 if update else 1e-6, abs=1.1e-4)
            assert plain.get(name, 0) == near, (update, name)
    assert "--compile: compiling took" in caplog.text
