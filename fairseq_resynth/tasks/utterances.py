"""What the tasks have in common: loading that outlives the epochs, and how a training ends early."""

import sys
from typing import Any, Dict, Optional

from fairseq.tasks import FairseqTask

from fairseq_resynth.data.datasets.base import UtteranceDataset
from fairseq_resynth.data.datasets.epochs import EpochIterator
from fairseq_resynth.data.datasets.workers import LoadingError


class UtteranceTask(FairseqTask):
    """A task whose datasets are `UtteranceDataset`."""

    _prepared: Optional[EpochIterator] = None  # over the next epoch of training

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


def report_briefly() -> None:
    """Makes an interruption, and an item that cannot be loaded, end the program without a traceback."""
    previous = sys.excepthook

    def report(kind, error, trace) -> None:
        if issubclass(kind, KeyboardInterrupt):
            message = "Interrupted."
        elif issubclass(kind, LoadingError):
            message = f"error: {error}"
        else:
            return previous(kind, error, trace)
        resumes = "The same command resumes the training from its last checkpoint."
        sys.stderr.write(f"{message}\n{resumes}\n")

    sys.excepthook = report
