"""Tiny HuBERT, wav2vec 2.0 and CPC checkpoints in the layout that the full-size ones were released in."""

from argparse import Namespace
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import cpc_feature_reader as cpc
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model
from fairseq.tasks.audio_pretraining import AudioPretrainingConfig
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

CRITERION = {"hubert": "hubert", "wav2vec2": "wav2vec"}
CONVOLUTIONS = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"
TRANSFORMER = {
    "conv_feature_layers": CONVOLUTIONS,
    "encoder_layers": 3,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "final_dim": 8,
}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Spreads the weights, so that features of different sounds differ clearly."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def _state(model, cfg, args, task_state):
    return {
        "args": args,
        "cfg": cfg,
        "model": model.state_dict(),
        "criterion": {},
        "optimizer_history": [
            {
                "criterion_name": "HubertCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": 1.0},
                "num_updates": 4,
            }
        ],
        "task_state": task_state,
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def _with_values(config, values: dict, name: str) -> dict:
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    plain = {key: value for key, value in plain.items() if not str(value).startswith("${")}
    return plain | values | {"_name": name}


def _namespace(arch: str, model: dict, task: dict) -> Namespace:
    """All options in one Namespace; those that fairseq got after 2020 are not there."""
    later = ("_name", "adp_", "depthwise", "attn_type", "pos_enc_type", "multi_corpus", "post_save")
    values = {key: value for key, value in (model | task).items() if not key.startswith(later)}
    return Namespace(**values, arch=arch, task=task["_name"], criterion=CRITERION[arch], seed=1)


def save_hubert(path: Path, layout: str, **changes) -> Path:
    """Writes a HuBERT checkpoint; `layout` is how its configuration is kept: dict, omegaconf, namespace."""
    torch.manual_seed(1)
    task = HubertPretrainingConfig(data="/nowhere", labels=["km"], label_rate=50.0)
    task.normalize = changes.pop("normalize", False)
    values = TRANSFORMER | {"label_rate": 50.0} | changes
    config = HubertConfig(**values)
    dictionary = Dictionary()
    for word in range(5):
        dictionary.add_symbol(str(word), n=10)
    built = HubertModel(
        HubertConfig(**(values | {"conv_feature_layers": CONVOLUTIONS})), task, [dictionary]
    )
    model = randomise(built)
    settings = {
        "common": {},
        "task": _with_values(task, {}, "hubert_pretraining"),
        "model": _with_values(config, values, "hubert"),
    }
    args = None
    if layout == "omegaconf":
        settings = OmegaConf.create(settings)
    if layout == "namespace":
        args = _namespace("hubert", settings["model"], settings["task"])
        settings = None
    torch.save(_state(model, settings, args, {"dictionaries": [dictionary]}), path)
    return path


def save_wav2vec2(path: Path, layout: str = "namespace", **changes) -> Path:
    """Writes a wav2vec 2.0 checkpoint: Namespace args as in 2020, or the later cfg."""
    torch.manual_seed(2)
    values = (
        TRANSFORMER | {"quantize_targets": True, "latent_vars": 4, "latent_groups": 2} | changes
    )
    model = randomise(Wav2Vec2Model(Wav2Vec2Config(**values)))
    task = _with_values(AudioPretrainingConfig(data="/nowhere"), {}, "audio_pretraining")
    config = _with_values(Wav2Vec2Config(**values), values, "wav2vec2")
    args, settings = None, {"common": {}, "task": task, "model": config}
    if layout == "namespace":
        args, settings = _namespace("wav2vec2", config, task), None
    torch.save(_state(model, settings, args, {}), path)
    return path


def save_cpc(path: Path, levels: int = 2) -> Path:
    """Writes a CPC checkpoint: weights with the prediction heads that extraction ignores, and config."""
    torch.manual_seed(3)
    encoder, context = cpc.CPCEncoder(16), cpc.CPCAR(16, 12, False, levels)
    model = randomise(cpc.CPCModel(encoder, context))
    config = {
        "hiddenEncoder": 16,
        "hiddenGar": 12,
        "nLevelsGRU": levels,
        "samplingType": "samespeaker",
    }
    torch.save({"weights": model.state_dict(), "config": config}, path)
    return path
