"""What the tasks have in common: loading that outlives the epochs, and how a training ends early."""

import atexit
import logging
import os
import signal
from typing import Any, Dict, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask
from omegaconf import OmegaConf

from fairseq_resynth.data.datasets.base import UtteranceDataset
from fairseq_resynth.data.datasets.epochs import EpochIterator
from fairseq_resynth.data.datasets.workers import PREEMPTION_SIGNALS
from fairseq_resynth.tasks.non_finite import RecentBatches, logged_non_finite

logger = logging.getLogger(__name__)


class UtteranceTask(FairseqTask):
    """A task whose datasets are `UtteranceDataset`.

    A training that gets one of `PREEMPTION_SIGNALS` finishes its update, saves a checkpoint and ends by that
    signal; all ranks stop at the same update, whichever gets it. A second signal ends the process at once.
    A loss or gradient that is NaN or infinite stops it on all ranks before anything is saved of it.
    """

    _prepared: Optional[EpochIterator] = None  # over the next epoch of training
    _preempted_by = 0  # the signal

    def __init__(self, cfg: FairseqDataclass):
        super().__init__(cfg)
        self.batches = RecentBatches(self.datasets)
        # The settings of the whole training, which contain the task's; None outside a training.
        self._training = cfg._get_parent() if OmegaConf.is_config(cfg) else None
        if self._training is not None:
            # fairseq's other way is that rank 0 sends what it has read, by a pickle that torch 2.6 refuses.
            self._training.checkpoint.load_checkpoint_on_all_dp_ranks = True

    def get_batch_iterator(self, dataset: UtteranceDataset, **settings) -> EpochIterator:
        """Returns fairseq's iterator with the workers of `EpochIterator`; settings as fairseq's."""
        settings = {"epoch": 1, **settings}
        iterator = None
        if dataset.crops:
            iterator, self._prepared = self._prepared, None
        if iterator is None or (iterator.dataset, iterator.settings) != (dataset, settings):
            iterator = self._make_iterator(dataset, settings)
        dataset.set_epoch(settings["epoch"])
        return iterator

    def _make_iterator(self, dataset: UtteranceDataset, settings: Dict[str, Any]) -> EpochIterator:
        def following() -> EpochIterator:
            epoch = dataset.epoch
            after = {**settings, "epoch": settings["epoch"] + 1}
            self._prepared = self._make_iterator(dataset, after)
            dataset.set_epoch(epoch)
            return self._prepared

        iterator = super().get_batch_iterator(dataset, **settings)
        return EpochIterator(iterator, settings, following if dataset.crops else None)

    def begin_epoch(self, epoch, model) -> None:
        """Handles signals from the first epoch on."""
        for number in PREEMPTION_SIGNALS:
            signal.signal(number, self._note_preemption)

    def _note_preemption(self, number: int, frame: Any) -> None:
        self._preempted_by = number
        signal.signal(number, signal.SIG_DFL)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Makes an update; the logging output, which fairseq sums over the ranks, also says whether a signal
        has come."""
        loss, sample_size, logged = self.update(
            sample, model, criterion, optimizer, update_num, ignore_grad
        )
        self.batches.add(sample, logged, update_num + 1)
        return loss, sample_size, {**logged, "preempted": float(bool(self._preempted_by))}

    def update(self, sample, model, criterion, optimizer, update_num, ignore_grad):
        """Forward and backward pass of a batch, as fairseq's `train_step`; for tasks to override."""
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, sample, model, criterion):
        """Validates on a batch; the result is that of fairseq's `valid_step`."""
        result = self.validate(sample, model, criterion)
        self.batches.set_validation(sample, result[2])
        return result

    def validate(self, sample, model, criterion):
        """Forward pass of a batch, as fairseq's `valid_step`; for tasks to override."""
        return super().valid_step(sample, model, criterion)

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion) -> None:
        """Logs the criterion's terms, and stops the training if a rank has got a signal.

        Raises NonFiniteLossError if a term is NaN or infinite. fairseq saves only after this.
        """
        super().reduce_metrics(logging_outputs, criterion)
        if logged_non_finite():
            raise self.batches.error()
        if sum(float(log.get("preempted", 0)) for log in logging_outputs):
            self._stop()

    def _stop(self) -> None:
        """Makes fairseq save after this update and stop.

        Its limit of hours is the only way to a checkpoint inside an epoch. There is no validation, since what
        sent the signal soon kills the process.
        """
        self._training.optimization.stop_time_hours = 1e-9
        self._training.dataset.disable_validation = True
        logger.warning("preempted: saving a checkpoint; the same command continues from it")
        atexit.register(_end_by_signal, self._preempted_by or signal.SIGTERM)


def _end_by_signal(number: int) -> None:
    """Ends as the signal would have done, so that callers do not take the training for finished."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
