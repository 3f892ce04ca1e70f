"""Run by test_distributed: does some trainings in one of several processes and saves what it then holds.

usage: two_ranks.py TRAININGS.json, a list of {"path", "updates", "checkpoint", "arguments" of fairseq-train}
"""

import json
import sys
from pathlib import Path

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer

import fairseq_resynth.tasks  # noqa: F401  registers the plugin
from fairseq_resynth.tasks.validation import MEASURES


class CpuDistributedDataParallel(torch.nn.parallel.DistributedDataParallel):
    """fairseq names a GPU to pytorch_ddp even with --cpu, which torch refuses."""

    def __init__(self, device_ids, output_device, **kwargs):
        super().__init__(**kwargs)


distributed_fairseq_model.DistributedDataParallel = CpuDistributedDataParallel


def validate(trainer) -> dict[str, list[float]]:
    """Returns [mean, weight] of every measure of --eval-audio."""
    if not (Path(trainer.task.cfg.data) / "valid.tsv").is_file():
        return {}
    trainer.task.load_dataset("valid")
    trainer.begin_valid_epoch(1)
    with metrics.aggregate(new_root=True) as meters:
        for sample in trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False):
            trainer.valid_step(sample)
    return {name: [float(meters[name].avg), float(meters[name].count)] for name in MEASURES}


def make_trainer(cfg) -> Trainer:
    torch.manual_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.lr_step(0)
    return trainer


def snapshot(trainer) -> dict[str, torch.Tensor]:
    modules = {"model": trainer.get_model(), "criterion": trainer.get_criterion()}
    return {
        f"{kind}.{name}": value.clone()
        for kind, module in modules.items()
        for name, value in module.state_dict().items()
        if torch.is_tensor(value)
    }


def main(cfg, path: str, updates: int, checkpoint: str) -> None:
    """Trains and saves {"start", "end", "resumed" from a checkpoint} of model and criterion, and "validation"
    before the first update."""
    trainer = make_trainer(cfg)
    validation = validate(trainer)
    start, epoch = snapshot(trainer), 0
    while trainer.get_num_updates() < updates:
        epoch += 1
        for sample in trainer.get_train_iterator(epoch).next_epoch_itr(shuffle=False):
            trainer.train_step([sample])
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(checkpoint, {})
    if distributed_utils.get_data_parallel_world_size() > 1:
        torch.distributed.barrier()
    resumed = make_trainer(cfg)
    resumed.load_checkpoint(checkpoint)
    assert resumed.get_num_updates() == trainer.get_num_updates()
    states = {"start": start, "end": snapshot(trainer), "resumed": snapshot(resumed)}
    torch.save({**states, "validation": validation}, path)


if __name__ == "__main__":
    for training in json.loads(Path(sys.argv[1]).read_text()):
        parser = options.get_training_parser()
        parsed = options.parse_args_and_arch(parser, training["arguments"])
        cfg = convert_namespace_to_omegaconf(parsed)
        settings = {name: training[name] for name in ("path", "updates", "checkpoint")}
        distributed_utils.call_main(cfg, main, **settings)
