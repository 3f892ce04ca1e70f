"""The codec's name for chunked decoding."""

from fairseq_resynth.chunked_synthesis import ChunkDecoder

__all__ = ["ChunkDecoder"]
