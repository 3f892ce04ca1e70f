"""Decoding of units as they come: the generator hears each chunk with all the context that it looks at."""

from collections.abc import Sequence

import numpy as np

from fairseq_resynth.data.streams import Streams
from fairseq_resynth.modules.hifigan import HifiganGenerator
from fairseq_resynth.unit_decoder import Speaker, UnitDecoder

DEFAULT_FRAMES = 32  # context of a generator whose layers are not known here


def context_frames(generator: object) -> int:
    """Returns how many frames on either side of a sample the generator looks at, at most.

    Counted from the kernels: half the kernel times the dilation for each convolution, and what a transposed
    convolution spreads. 22 frames for HiFi-GAN V1, which by its weights looks at 20.
    """
    if not isinstance(generator, HifiganGenerator):
        return DEFAULT_FRAMES
    reach = generator.conv_post.kernel_size[0] // 2
    stages = zip(generator.upsamples, generator.resblocks, strict=True)
    for upsample, blocks in reversed(list(stages)):
        reach += max(sum(map(_reach, [*block.dilated, *block.plain])) for block in blocks)
        reach = -(-(reach + upsample.kernel_size[0] - 1) // upsample.stride[0])
    return reach + generator.conv_pre.kernel_size[0] // 2


def _reach(layer: object) -> int:
    return layer.dilation[0] * (layer.kernel_size[0] // 2)


class ChunkDecoder:
    """Turns streams into samples chunk by chunk, equal to decoding them at once.

    Args:
        decoder: the unit vocoder.
        speaker: name, index or vector; None for a model without speakers.
        chunk_units: units decoded at once, beside their context; rounded up to whole F0 codes.
        style: name, for a model with styles.

    Attributes:
        context: units kept on either side of a chunk.
    """

    def __init__(
        self,
        decoder: UnitDecoder,
        speaker: Speaker | None = None,
        chunk_units: int = 50,
        style: str | None = None,
    ):
        self._decoder, self._speaker, self._style = decoder, speaker, style
        self._streams: Streams = decoder.streams
        self._span = max(1, self._streams.f0_code_hop // self._streams.unit_hop)
        hop = decoder.generator.generator.hop
        context = -(-context_frames(decoder.generator.generator) * hop // self._streams.unit_hop)
        self.context = -(-context // self._span) * self._span
        self._chunk = -(-chunk_units // self._span) * self._span
        self._units: list[int] = []
        self._f0_codes: list[int] = []
        self._dropped = 0  # units before the first held one, a whole number of spans
        self._done = 0  # units whose samples were given

    def push(self, units: Sequence[int], f0_codes: Sequence[int] = ()) -> np.ndarray:
        """Takes units and F0 codes, returns the samples that are ready: (n,) float32."""
        self._units.extend(units)
        self._f0_codes.extend(f0_codes)
        parts = []
        while self._known() >= self._done + self._chunk + self.context:
            parts.append(self._decode(self._done + self._chunk))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Returns the remaining samples.

        Raises:
            ValueError: a stream that the model needs is missing or too short.
        """
        parts = []
        while self._done < self._dropped + len(self._units):
            stop = min(self._done + self._chunk, self._dropped + len(self._units))
            parts.append(self._decode(stop))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _known(self) -> int:
        known = self._dropped + len(self._units)
        if self._streams.num_f0_codes:
            known = min(known, self._dropped + len(self._f0_codes) * self._span)
        return known

    def _decode(self, stop: int) -> np.ndarray:
        """Decodes units up to `stop`, with context on both sides, and forgets what is no longer needed."""
        first = max(self._done - self.context, 0)
        start, end = first - self._dropped, stop + self.context - self._dropped
        codes = None
        if self._streams.num_f0_codes:
            piece = self._f0_codes[start // self._span : -(-end // self._span)]
            codes = np.array([piece], dtype=np.int64)
        wav = self._decoder.decode(
            np.array([self._units[start:end]], dtype=np.int64),
            codes,
            self._speaker,
            style=self._style,
        )
        hop = self._streams.unit_hop
        samples = wav[0, 0, (self._done - first) * hop : (stop - first) * hop]
        self._done = stop
        keep = max(stop - self.context, 0) // self._span * self._span - self._dropped
        del self._units[:keep]
        del self._f0_codes[: keep // self._span]
        self._dropped += keep
        return samples
