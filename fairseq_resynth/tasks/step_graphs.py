"""The halves of a GAN step recorded as CUDA graphs: one launch for each instead of thousands."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from fairseq_resynth.modules.discriminators.base import freeze
from fairseq_resynth.tasks.training_checks import WITHOUT_GRAPHS, check_recordable

logger = logging.getLogger(__name__)
Inputs = Dict[str, Any]  # {"net_input": {name: tensor}, "target": (B, 1, T)}
Networks = Tuple[nn.Module, nn.Module]  # the model and the criterion
# Runs a function and returns one that does the same again with the same tensors, and leaves the gradients in
# the parameters.
Capture = Callable[[Callable[[], Any], Sequence[nn.Parameter]], Callable[[], Any]]
WARM_UPS = 3  # as torch's documentation recommends


class CudaCapture:
    """Records functions as CUDA graphs that share one pool of memory, in the order of the calls."""

    def __init__(self):
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(
        self, function: Callable[[], Any], parameters: Sequence[nn.Parameter]
    ) -> Callable[[], Any]:
        """Records a function, whose backward pass may set the gradients of the parameters."""
        graph = torch.cuda.CUDAGraph()
        # Only calls of this thread count as errors: that of the data loader may copy in the meantime.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            result = function()
        gradients = [p.grad for p in parameters]

        def replay() -> Any:
            graph.replay()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            return result

        return replay


class RepeatedShape:
    """Finds the shape of a training's batches: the first that two updates in a row have.

    Batches of other shapes, as the last one of an epoch, are exceptions.
    """

    def __init__(self):
        self._last: Any = None
        self._found: Any = None

    def __call__(self, inputs: Inputs) -> bool:
        """Whether a batch has that shape."""
        tensors = {"target": inputs["target"], **inputs["net_input"]}
        shape = {name: (value.shape, value.dtype) for name, value in tensors.items()}
        if self._found is None and shape == self._last:
            self._found = shape
        self._last = shape
        return shape == self._found


class StepGraphs:
    """Records the halves of a step for the shape of the training's batches, and replays them.

    Batches of other shapes and steps with hooks (fairseq's search for NaN) run as written. `make_capture`
    builds a `Capture`.
    """

    def __init__(self, make_capture: Callable[[], Capture] = CudaCapture):
        self.make_capture = make_capture
        self._fits = RepeatedShape()
        self._recording: Optional[RecordedStep] = None

    def halves(
        self,
        inputs: Inputs,
        networks: Networks,
        adversarial: bool,
        first: Callable,
        second: Callable,
    ) -> Tuple[Callable, Callable]:
        """The two halves to call: recorded ones if they fit the inputs, otherwise those that were given.

        Raises ValueError if they cannot be recorded.
        """
        model = networks[0]
        if not self._fits(inputs) or model._forward_hooks or model._forward_pre_hooks:
            return first, second
        if self._recording is None or self._recording.adversarial != adversarial:
            for network in networks:
                check_recordable(network)
            # Frees the memory of the graphs from before the discriminators began.
            self._recording = None
            capture = self.make_capture()
            self._recording = RecordedStep(inputs, networks, adversarial, first, second, capture)
        return self._recording.first, self._recording.second


class RecordedStep:
    """The two halves of a step on inputs of one shape. Each is recorded when it is first called.

    Between the two calls the discriminators are stepped. Raises ValueError with torch's reason if a half
    cannot be recorded.
    """

    def __init__(
        self,
        inputs: Inputs,
        networks: Networks,
        adversarial: bool,
        first: Callable,
        second: Callable,
        capture: Capture,
    ):
        self.adversarial = adversarial
        self.inputs = _cloned(inputs)
        self._networks = networks
        self._parameters = [p for network in networks for p in network.parameters()]
        self._halves = first, second
        self._capture = capture
        self._replays: List[Callable[[], Any]] = []
        self._halfway: Any = None
        self._started = time.monotonic()
        if self.inputs["target"].device.type == "cuda":
            self._warm_up()

    def _warm_up(self) -> None:
        """Runs both halves until libraries have chosen their kernels; no weight, buffer or seed changes."""
        buffers = [buffer for network in self._networks for buffer in network.buffers()]
        saved = [buffer.clone() for buffer in buffers]
        first, second = self._halves
        discriminators = self._networks[1].discriminators
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                halfway = first(self.inputs)
                freeze(discriminators, True)
                second(self.inputs, halfway)
                freeze(discriminators, not self.adversarial)
                for parameter in self._parameters:
                    parameter.grad = None
        torch.cuda.current_stream().wait_stream(stream)
        torch._foreach_copy_(buffers, saved)

    def first(self, inputs: Inputs) -> Any:
        """The first half on new inputs; what it returns is overwritten by the next call."""
        _copy(self.inputs, inputs)
        if not self._replays:
            self._record(lambda: self._halves[0](self.inputs))
        self._halfway = self._replays[0]()
        return self._halfway

    def second(self, inputs: Inputs, halfway: Any) -> Dict[str, Tensor]:
        """The second half, on the inputs of the first; what it returns is overwritten by the next call."""
        if len(self._replays) < 2:
            self._record(lambda: self._halves[1](self.inputs, self._halfway))
            seconds = time.monotonic() - self._started
            logger.info("--cuda-graphs: recorded the step in %.1f s", seconds)
        return self._replays[1]()

    def _record(self, half: Callable[[], Any]) -> None:
        try:
            self._replays.append(self._capture(half, self._parameters))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"--cuda-graphs: the step cannot be recorded: {reason}. {WITHOUT_GRAPHS}"
            ) from error


def _cloned(inputs: Inputs) -> Inputs:
    streams = {name: value.clone() for name, value in inputs["net_input"].items()}
    return {"net_input": streams, "target": inputs["target"].clone()}


def _copy(static: Inputs, inputs: Inputs) -> None:
    static["target"].copy_(inputs["target"], non_blocking=True)
    for name, value in inputs["net_input"].items():
        static["net_input"][name].copy_(value, non_blocking=True)
