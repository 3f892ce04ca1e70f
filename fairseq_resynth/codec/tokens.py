"""Tokens of any tokenizer, of one or several codebooks, coded without loss.

A codebook is one stream of symbols, or two where it has more tokens than a context model: `token // base` and
`token % base`. The first stream is coded as content units are; each other one from its own past and from the
stream before it at the same frame, as F0 codes are from units.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fairseq_resynth.codec.entropy.context_model import F0Model
from fairseq_resynth.codec.entropy.entropy_model import EntropyModel, Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_BITS
from fairseq_resynth.codec.format.bitstream import pack_varint, read_varint
from fairseq_resynth.codec.format.payload import LARGEST, LIMIT, PayloadCoder, encode_steps
from fairseq_resynth.codec.format.range_coder import ByteDecoder, ByteEncoder, CodecError
from fairseq_resynth.data.storage.files import atomic_path
from fairseq_resynth.data.storage.messages import one_line, shown
from fairseq_resynth.data.streams import Utterance, is_data_directory, read_utterances
from fairseq_resynth.data.unit_files import read_unit_file
from fairseq_resynth.data.units import as_frames

FORMAT = "resynth-tokens-1"
LARGEST_STREAM = 1 << 12  # symbols of a context model
_HOP = 320  # samples; every stream of a token model has the same, so that no rate depends on it


@dataclass(frozen=True)
class Tokens:
    """An utterance of tokens."""

    name: str  # used in reports and messages
    frames: np.ndarray  # (T, Q) int64


def read_tokens(
    path: str | Path, codebooks: int = 1, splits: Sequence[str] | None = None, key: str = ""
) -> list[Tokens]:
    """Reads the tokens of what `read_utterances` reads; with several `codebooks` those of a frame follow each
    other, or each utterance is an array. Raises ValueError if an utterance is not whole frames."""
    if codebooks < 1:
        raise ValueError(f"found {codebooks} codebooks, expected 1 or more")
    if codebooks == 1 or is_data_directory(path):
        rows = [(row.name, row.units) for row in read_utterances(path, splits, key)]
    else:
        rows = [(row.label, row.units) for row in read_unit_file(path, key, codebooks)]
    return [Tokens(name, as_frames(units, codebooks, f"{path}: {name}")) for name, units in rows]


@dataclass(frozen=True)
class TokenModel:
    """The context models of a tokenizer: the first codes two streams, each further one the next stream."""

    vocabularies: tuple[int, ...]  # tokens of each codebook
    models: tuple[EntropyModel, ...]

    @cached_property
    def _bases(self) -> list[int]:
        """Of each codebook: by what its tokens are divided into two streams; 0 if it is one."""
        return [
            0 if size <= LARGEST_STREAM else math.isqrt(size - 1) + 1 for size in self.vocabularies
        ]

    def streams(self, tokens: Tokens) -> np.ndarray:
        """(S, T) int64: the streams of an utterance. Raises ValueError if it has another number of codebooks
        or a token that the model lacks."""
        frames, sizes = tokens.frames, self.vocabularies
        if frames.shape[1] != len(sizes):
            raise ValueError(
                f"{shown(tokens.name)}: found {frames.shape[1]} codebooks, the model has {len(sizes)}."
            )
        for codebook, (row, size) in enumerate(zip(frames.T, sizes, strict=True)):
            if len(row) and not 0 <= row.min() <= row.max() < size:
                raise ValueError(
                    f"{shown(tokens.name)}: found tokens {row.min()} to {row.max()} in codebook {codebook}, "
                    f"the model knows 0 to {size - 1}: fit one on this tokenizer with `resynth fit-codec`."
                )
        return _split(frames, self._bases)

    def encode(self, tokens: Tokens) -> tuple[bytes, np.ndarray]:
        """The bytes of an utterance, and the (Q,) bits of each codebook before they are rounded."""
        streams, encoder = self.streams(tokens), ByteEncoder()
        count = streams.shape[1]
        first = self._first_coder(encoder)
        encode_steps(first.steps(count), streams[0].tolist(), streams[1:2].ravel().tolist())
        coded: list[float] = [first.bits["units"] + first.bits["runs"], first.bits["f0"]]
        bits = coded[: len(streams)]
        bits += [self._code(stream, encoder, streams) for stream in range(2, len(streams))]
        by_codebook = np.add.reduceat(
            bits, np.cumsum([0, *(1 + bool(b) for b in self._bases)])[:-1]
        )
        return pack_varint(count) + encoder.finish(), by_codebook

    def decode(self, data: bytes) -> np.ndarray:
        """The (T, Q) int64 of an utterance; raises CodecError if the bytes are damaged."""
        count = read_varint(data)
        if count is None:
            raise CodecError("the tokens are truncated: their number is missing")
        if count[0] > LIMIT:
            raise CodecError(
                f"the tokens are damaged: they claim {count[0]} frames, expected up to {LIMIT}"
            )
        decoder = ByteDecoder()
        decoder.feed(data[count[1] :], complete=True)
        first = self._first_coder(decoder)
        for _ in first.steps(count[0]):
            pass
        coded = [first.units, first.f0_codes][: self._num_streams]
        if any(len(found) != count[0] for found in coded):  # before memory is claimed for the rest
            raise CodecError("the tokens are damaged: they end too early")
        streams = np.zeros((self._num_streams, count[0]), np.int64)
        for row, found in zip(streams, coded, strict=False):
            row[:] = found
        for stream in range(2, len(streams)):
            self._code(stream, decoder, streams)
        decoder.finish()
        return _join(streams, self._bases)

    @property
    def _num_streams(self) -> int:
        return sum(1 + bool(base) for base in self._bases)

    def _first_coder(self, coder: ByteEncoder | ByteDecoder) -> PayloadCoder:
        return PayloadCoder(self.models[0], coder, self._num_streams > 1)

    def _code(self, stream: int, coder: ByteEncoder | ByteDecoder, streams: np.ndarray) -> float:
        """Codes a stream from the second on, in place when decoding; returns its bits."""
        model, bits = F0Model(self.models[stream - 1]), 0.0
        given = isinstance(coder, ByteEncoder)
        before = self.models[stream - 1].settings.num_units
        for frame, unit in enumerate(streams[stream - 1].tolist()):
            frequencies = model.frequencies(unit, before)
            symbol = coder.code(frequencies, int(streams[stream, frame]) if given else None)
            if symbol == model.end:
                raise CodecError("the tokens are damaged: they end too early")
            bits += PROBABILITY_BITS - math.log2(frequencies[symbol] + 1)
            model.saw(symbol)
            streams[stream, frame], before = symbol, unit
        return bits

    def save(self, path: str | Path) -> None:
        """Writes safetensors that hold the file of each context model."""
        files = {
            f"{number:03}": np.frombuffer(model.to_bytes(), np.uint8)
            for number, model in enumerate(self.models)
        }
        metadata = {"format": FORMAT, "vocabularies": json.dumps(self.vocabularies)}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(files, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "TokenModel":
        """Reads what `save` wrote; raises ValueError if it is another kind of file, or damaged."""
        try:
            with safe_open(path, framework="numpy") as stored:
                vocabularies = json.loads(stored.metadata()["vocabularies"])
                files = [stored.get_tensor(name).tobytes() for name in sorted(stored.keys())]
            models = [EntropyModel.from_bytes(data, "a context model in it") for data in files]
            found = cls(tuple(int(size) for size in vocabularies), tuple(models))
            sizes = found._sizes()
            known = [models[0].settings.num_units, *(one.settings.num_f0_codes for one in models)]
            if known[: len(sizes)] != sizes or len(models) != max(len(sizes) - 1, 1):
                raise ValueError(f"its models are of {known} symbols, its codebooks of {sizes}")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path} is damaged: {one_line(error)}") from error
        return found

    def _sizes(self) -> list[int]:
        return _stream_sizes(self.vocabularies, self._bases)


def is_token_model(path: str | Path) -> bool:
    """Whether a file is a `TokenModel`."""
    try:
        with safe_open(path, framework="numpy") as stored:
            return (stored.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _split(frames: np.ndarray, bases: Sequence[int]) -> np.ndarray:
    streams = []
    for row, base in zip(frames.T, bases, strict=True):
        streams += [row // base, row % base] if base else [row]
    return np.stack(streams)


def _join(streams: np.ndarray, bases: Sequence[int]) -> np.ndarray:
    rows, codebooks = iter(streams), []
    for base in bases:
        row = next(rows)
        codebooks.append(row * base + next(rows) if base else row)
    return np.stack(codebooks, axis=1)


def _stream_sizes(vocabularies: Sequence[int], bases: Sequence[int]) -> list[int]:
    sizes = []
    for size, base in zip(vocabularies, bases, strict=True):
        sizes += [-(-size // base), base] if base else [size]
    return sizes


def vocabularies(tokens: Sequence[Tokens], codebooks: int, size: int | None = None) -> list[int]:
    """The tokens of each codebook: `size`, or else one more than the largest. Raises ValueError if there are
    none, or too many."""
    largest = np.zeros(codebooks, np.int64) - 1
    for row in tokens:
        largest = np.maximum(largest, row.frames.max(axis=0, initial=-1))
    if min(largest) < 0:
        raise ValueError("found no tokens, expected at least one utterance to fit on")
    sizes = [int(most) + 1 if size is None else size for most in largest]
    if max(sizes) > LARGEST + 1:
        raise ValueError(f"found codebooks of {max(sizes)} tokens, expected up to {LARGEST + 1}")
    return sizes


def fit_token_model(
    tokens: Sequence[Tokens], sizes: Sequence[int], options: TrainingOptions
) -> TokenModel:
    """Fits the context models of utterances whose codebooks have `sizes` tokens. Only the first stream has a
    network. Raises ValueError for tokens outside the codebooks."""
    form = TokenModel(tuple(sizes), ())
    rows = [form.streams(one) for one in tokens]
    counts, models = form._sizes(), []
    for stream in range(max(len(counts) - 1, 1)):
        several = len(counts) > 1
        codes = counts[stream + 1] if several else 0
        settings = Settings(counts[stream], _HOP, codes, _HOP)
        utterances = [
            Utterance(row[stream], row[stream + 1] if several else None, name=one.name)
            for one, row in zip(tokens, rows, strict=True)
        ]
        if not stream:
            models.append(fit_entropy_model(utterances, settings, options))
            continue
        without = replace(options, hidden_size=0)
        model = fit_entropy_model(utterances, settings, without)
        # Its own model codes the units of this one; what predicts them here would be dead weight.
        empty = fit_entropy_model([Utterance(np.zeros(1, np.int64))], settings, without).tables
        kept = {name: model.tables[name] for name in ("f0", "f0_by_unit")}
        models.append(replace(model, tables={**empty, **kept}))
    return TokenModel(tuple(sizes), tuple(models))
