"""Trainings that a cluster preempts: after SIGTERM the update ends, a checkpoint is saved and the process stops."""

import atexit
import logging
import os
import signal
from typing import Any, Dict, List

logger = logging.getLogger(__name__)
# SIGUSR2 is what submitit asks Slurm to send before a job's time limit.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Preemption:
    """Stops fairseq's training loop at the same update on every rank, whichever rank gets the signal.

    Args:
        cfg: the task's settings; the settings of the whole training are their parent.
    """

    def __init__(self, cfg: Any):
        self._cfg = cfg
        self._received = 0

    def listen(self) -> None:
        """Handles `SIGNALS` from now on; a second signal ends the process at once."""
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self._received = number
        signal.signal(number, signal.SIG_DFL)

    def report(self, logging_output: Dict[str, Any]) -> None:
        """Adds this rank's state to the logging output of an update, which fairseq sums over the ranks."""
        logging_output["preempted"] = float(bool(self._received))

    def stop_if_reported(self, logging_outputs: List[Dict[str, Any]]) -> None:
        """Makes fairseq save after this update and stop, if any rank reported a signal.

        The time limit of the training, when passed, is fairseq's only way to a checkpoint in the middle of
        an epoch. Validation is left out, since what sent the signal soon kills the process.
        """
        if not sum(float(log.get("preempted", 0)) for log in logging_outputs):
            return
        training = self._cfg._get_parent()
        training.optimization.stop_time_hours = 1e-9
        training.dataset.disable_validation = True
        logger.warning("preempted: saving a checkpoint; the same command continues from it")
        atexit.register(_end_by_signal, self._received or signal.SIGTERM)


def _end_by_signal(number: int) -> None:
    """Ends as the signal would have done, so that callers do not take the training for finished."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
