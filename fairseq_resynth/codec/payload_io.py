"""Writing and reading the coded streams of one file, at once or as they come."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from fairseq_resynth.codec.entropy_model import EntropyModel
from fairseq_resynth.codec.payload import END, LARGEST, Need, PayloadCoder
from fairseq_resynth.codec.range_coder import ByteDecoder, ByteEncoder


class PayloadWriter:
    """Encodes streams as they come.

    Attributes:
        coder: see `PayloadCoder`.
    """

    def __init__(self, model: EntropyModel, has_f0: bool):
        self._encoder = ByteEncoder()
        self.coder = PayloadCoder(model, self._encoder, has_f0)
        self._steps = self.coder.steps()
        self._need: Need | None = next(self._steps)
        self._queues: dict[Need, deque[int]] = {need: deque() for need in Need}
        self._samples, self._unit_hop = 0, model.settings.unit_hop

    def push(self, units: Iterable[int] = (), f0_codes: Iterable[int] = ()) -> None:
        """Takes more of the streams.

        Raises:
            ValueError: a value is negative or too large.
        """
        for need, values in ((Need.UNIT, units), (Need.F0, f0_codes)):
            values = np.asarray(values, dtype=np.int64).tolist()
            if values and not (0 <= min(values) and max(values) <= LARGEST):
                raise ValueError(
                    f"{need.value}: expected integers from 0 to {LARGEST}, "
                    f"found {min(values)} to {max(values)}"
                )
            self._queues[need].extend(values)
            self._samples += (need is Need.UNIT) * len(values) * self._unit_hop
        self._advance()

    def end_units(self) -> bytes:
        """Ends the units and returns their bytes, as those of a stream that holds nothing else."""
        self._queues[Need.UNIT].append(END)
        self._advance()
        return self._encoder.finish()

    def finish(self, num_samples: int | None = None) -> bytes:
        """Ends the streams and returns all bytes, the settled ones included.

        Args:
            num_samples: of the waveform; None: units times their hop.
        """
        self._queues[Need.UNIT].append(END)
        self._queues[Need.F0].append(END)
        self._queues[Need.SAMPLES].append(self._samples if num_samples is None else num_samples)
        self._advance()
        return self._encoder.finish()

    def settled(self) -> bytes:
        """Returns the bytes so far that nothing later can change."""
        return self._encoder.settled()

    def _advance(self) -> None:
        while self._need is not None and self._queues[self._need]:
            try:
                self._need = self._steps.send(self._queues[self._need].popleft())
            except StopIteration:
                self._need = None
        self.coder.units.clear()
        self.coder.f0_codes.clear()


class PayloadReader:
    """Decodes streams as their bytes come.

    Attributes:
        coder: see `PayloadCoder`; take units and F0 codes from its queues.
        finished: whether everything has been decoded and checked against the encoder's bytes.
    """

    def __init__(self, model: EntropyModel, has_f0: bool):
        self._decoder = ByteDecoder()
        self.coder = PayloadCoder(model, self._decoder, has_f0)
        self._steps = self.coder.steps()
        next(self._steps)
        self.finished = False

    def feed(self, data: bytes, complete: bool) -> None:
        """Takes more bytes; `complete` says that they were the last.

        Raises:
            CodecError: the bytes are damaged.
        """
        self._decoder.feed(data, complete)
        while not self.finished and self._decoder.ready():
            try:
                self._steps.send(None)
            except StopIteration:
                self.finished = True
        if complete:
            self._decoder.finish()
