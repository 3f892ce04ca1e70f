"""Checkpoints that would run code, are truncated or foreign: refused in one sentence, nothing run."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import save_cpc, save_hubert

from fairseq_resynth.data.storage.checkpoints import load_checkpoint
from fairseq_resynth.encoders.fairseq_models import (
    CpcEncoder,
    HubertEncoder,
    Wav2vec2Encoder,
    require_model,
)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.mark.parametrize("encoder", [HubertEncoder, Wav2vec2Encoder, CpcEncoder])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_code_in_a_checkpoint_does_not_run(encoder, zipped, forced, tmp_path, monkeypatch):
    if forced:  # torch's own switch to unpickle everything must not reach these files
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, sentinel = tmp_path / "bad.pt", tmp_path / "sentinel"
    state = {
        "model": {},
        "weights": {},
        "config": Hostile(sentinel),
        "args": Namespace(arch="hubert"),
    }
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"bad.pt holds (posix|nt).system, which .* nothing in it was run"
    ):
        encoder(path, 1)
    assert not sentinel.exists()


TEXTS = (
    "__import__('os').system('touch sentinel')",
    "[(1,2,3)][exit()]",
    "[(512,10,5)] * 99999999",
    "[(512,10,5)] * 9999 * 9999",
    "[(512,10)] * 3",
    "[(9**9**9,1,1)]",
    "print",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("layout", ["dict", "omegaconf", "namespace"])
def test_code_in_the_configuration_does_not_run(text, layout, tmp_path, monkeypatch):
    """fairseq evaluates the description of the convolutions."""
    monkeypatch.chdir(tmp_path)
    path = save_hubert(tmp_path / "bad.pt", layout, conv_feature_layers=text)
    with pytest.raises(
        ValueError, match="bad.pt: conv_feature_layers is .*, expected a list of integer trip"
    ):
        HubertEncoder(path, 1)
    assert not (tmp_path / "sentinel").exists()


def test_truncated_and_foreign_files(tmp_path):
    whole = save_hubert(tmp_path / "hubert.pt", "dict").read_bytes()
    for name, content in (("cut.pt", whole[:-5000]), ("text.pt", b"hello"), ("empty.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=f"{name} is not readable as a HuBERT checkpoint of fairseq"
        ):
            HubertEncoder(tmp_path / name, 1)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds a list, expected a HuBERT checkpoint"):
        HubertEncoder(tmp_path / "list.pt", 1)
    with pytest.raises(FileNotFoundError, match="none.pt does not exist"):
        HubertEncoder(tmp_path / "none.pt", 1)


def test_weights_that_contradict_the_configuration(tmp_path):
    path = save_hubert(tmp_path / "hubert.pt", "dict")
    state = load_checkpoint(path, "a checkpoint", [*_classes()])
    state["model"].pop("layer_norm.weight")
    torch.save(state, path)
    with pytest.raises(ValueError, match="hubert.pt is not readable as .*layer_norm.weight"):
        HubertEncoder(path, 1)
    path = save_cpc(tmp_path / "cpc.pt")
    state = torch.load(path, weights_only=True)
    state["weights"].pop("gEncoder.conv3.weight")
    torch.save(state, path)
    with pytest.raises(ValueError, match="cpc.pt lacks the weights gEncoder.conv3.weight"):
        CpcEncoder(path, 2)


def _classes():
    from fairseq_resynth.encoders.fairseq_models import fairseq_classes

    return fairseq_classes()


def test_a_checkpoint_that_does_not_say_what_it_is():
    with pytest.raises(ValueError, match="a.pt does not say which model it holds"):
        require_model(
            {"model": {}, "cfg": {"model": {}}}, Path("a.pt"), "hubert", "hubert_pretraining"
        )
    with pytest.raises(ValueError, match="a.pt does not say which model it holds"):
        require_model(
            {"model": {}, "args": Namespace()}, Path("a.pt"), "hubert", "hubert_pretraining"
        )


@pytest.mark.parametrize("name", ["encoder_layers", "pos_conv_depth", "quantizer_depth"])
@pytest.mark.parametrize("value", [10**18, "9" * 18, -1, None])
def test_numbers_of_layers_that_would_take_hours_to_build(name, value, tmp_path):
    path = save_hubert(tmp_path / "bad.pt", "dict")
    state = torch.load(path, weights_only=False)
    state["cfg"]["model"][name] = value
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"bad.pt: {name} is .*, expected 1 to 1000"):
        HubertEncoder(path, 1)


def test_a_negative_number_of_heads_fails_when_the_model_is_loaded(tmp_path):
    path = save_hubert(tmp_path / "bad.pt", "dict")
    state = torch.load(path, weights_only=False)
    state["cfg"]["model"]["encoder_attention_heads"] = -1
    torch.save(state, path)
    with pytest.raises(ValueError, match="bad.pt cannot encode a frame, its settings") as raised:
        HubertEncoder(path, 1)
    assert len(str(raised.value).splitlines()) == 1
