"""GSLM's CPC encoder: its reader's model, with long files encoded once and the LSTM never reset."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_resynth.data.features import FrameEncoder, plan_chunks
from fairseq_resynth.interop.checkpoints import load_checkpoint, refusals


class CpcEncoder(FrameEncoder):
    """CPC (Rivière et al., 2020) as GSLM's CpcFeatureReader: the first `layer` LSTM layers, 100 Hz.

    Args:
        path: the checkpoint.
        layer: how many LSTM layers to run.
        device: where to compute.
        chunk_frames: frames that go through the convolutions at once; any number gives the same features.
    """

    feature_type = "cpc"
    unit_hop = 160
    min_samples = 159
    # Beyond the 465 samples of its receptive field a frame does not depend on where a chunk ends.
    _context = 8

    def __init__(
        self,
        path: str | Path,
        layer: int,
        device: str | torch.device = "cpu",
        chunk_frames: int = 10_000,
    ):
        from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained import cpc_feature_reader

        self.checkpoint, self.layer = Path(path), layer
        self.device, self.chunk_frames = torch.device(device), chunk_frames
        what = "a CPC checkpoint (`weights` and `config`)"
        state = load_checkpoint(path, what)
        self._require(state, what)
        with refusals(self.checkpoint, what, ()):
            reader = cpc_feature_reader.CpcFeatureReader(str(path), layer, use_cuda=False)
        self._require_weights(reader.model, state["weights"])
        self.model = reader.model.requires_grad_(False).to(self.device)

    def _require(self, state: dict, what: str) -> None:
        if not isinstance(state.get("weights"), dict) or not isinstance(state.get("config"), dict):
            raise ValueError(
                f"{self.checkpoint} holds {', '.join(map(str, list(state)[:8]))}, expected {what}"
            )
        levels = sum("baseNet.weight_ih_l" in name for name in state["weights"])
        if not 1 <= self.layer <= levels:
            raise ValueError(
                f"--layer is {self.layer}, {self.checkpoint} has {levels} LSTM layers, counted from 1"
            )

    def _require_weights(self, model: torch.nn.Module, weights: dict) -> None:
        missing = set(model.state_dict()) - set(weights)  # the reader loads with strict=False
        if missing:
            raise ValueError(
                f"{self.checkpoint} lacks the weights {', '.join(sorted(missing)[:5])}"
            )

    def num_frames(self, samples: int) -> int:
        """Returns U: what the padded convolutions give, about samples / 160."""
        for kernel, stride, padding in ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1)):
            samples = max(0, (samples + 2 * padding - kernel) // stride + 1)
        return samples

    @torch.inference_mode()
    def features(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Encodes waveforms, (T,) to (U, D) each; see `FrameEncoder.features`."""
        frames = [self._convolve(wav.to(self.device)) for wav in wavs]
        # The LSTM runs forward in time, so padding at the end changes no frame before it.
        x = self.model.gAR(pad_sequence(frames, batch_first=True))
        return [row[: len(one)] for row, one in zip(x, frames, strict=True)]

    def _convolve(self, wav: Tensor) -> Tensor:
        """Returns (U, C): the convolutions' output, in chunks that overlap by their receptive field."""
        total, pieces = self.num_frames(len(wav)), []
        for chunk in plan_chunks(total, self.chunk_frames, self._context):
            stop = len(wav) if chunk.stop == total else chunk.stop * self.unit_hop
            piece = wav[None, None, chunk.start * self.unit_hop : stop]
            pieces.append(self.model.gEncoder(piece)[0].T[chunk.kept])
        return torch.cat(pieces)
