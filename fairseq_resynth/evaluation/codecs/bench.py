"""Bit/s of streams, counted in whole bytes of real files with one utterance each."""

import lzma
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format.bitstream import FileWriter, read_bytes
from fairseq_resynth.codec.tokens import TokenModel, Tokens
from fairseq_resynth.data.streams import Utterance

LONG_SECONDS = 3.0
PARTS = ("content", "f0", "overhead", "total")


def _rate(size: float, seconds: float) -> float:
    return round(8 * size / seconds, 3) if seconds else 0.0


def _rates(costs: Sequence[dict[str, Any]]) -> dict[str, float]:
    seconds = sum(cost["seconds"] for cost in costs)
    sizes = {part: sum(cost[f"{part}_bytes"] for cost in costs) for part in PARTS}
    return {f"{part}_bps": _rate(size, seconds) for part, size in sizes.items()}


def _write(model: EntropyModel, utterance: Utterance) -> tuple[bytes, dict[str, Any], Counter]:
    """An utterance's file, which names the context model instead of a bundle, and its size by part.

    `content` is the stream of units with its end mark alone, `f0` what the F0 codes add, and `overhead` the
    header, checksum, number of samples and end mark of the F0 codes. The last are code lengths in bits,
    before rounding to bytes.
    """
    writer = FileWriter(model, model.identity, has_f0=False)
    data = writer.push(utterance.units)
    content = len(writer.end_units())
    data += writer.finish()
    size = len(data)
    if utterance.f0_codes is not None:
        writer = FileWriter(model, model.identity, has_f0=True)
        data = writer.push(utterance.units, utterance.f0_codes) + writer.finish()
    seconds = len(utterance.units) * model.settings.unit_hop / model.settings.sample_rate
    cost: dict[str, Any] = {"name": utterance.name, "seconds": seconds}
    parts = content, len(data) - size, size - content, len(data)
    cost |= {f"{part}_bytes": count for part, count in zip(PARTS, parts, strict=True)}
    return data, cost, writer.coder.bits


def _stored_bps(
    model: EntropyModel, utterances: Sequence[Utterance], seconds: float
) -> dict[str, float]:
    """The rates of the units without a model."""
    known = [Tokens(row.name, row.units[:, None]) for row in utterances]
    size = max(
        [model.settings.num_units, *(1 + int(row.units.max(initial=0)) for row in utterances)]
    )
    found = stored_bits(known, [size])
    return {f"content_{name}_bps": _rate(bits / 8, seconds) for name, bits in found.items()}


def run_bench(
    model: EntropyModel, utterances: Sequence[Utterance], progress: Callable[[], Any] = lambda: None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Encodes each utterance into a file of its own, decodes it and compares.

    Returns a summary of all utterances, with the speed of coding in CPU time without compilation; and the
    sizes and rates, in bit/s, of each one. `progress` is called after each. Raises AssertionError if a file
    does not decode to its streams.
    """
    _write(model, Utterance(np.zeros(2, np.int64), np.zeros(1, np.int64)))  # compile first
    costs, bits, encoding, decoding = [], Counter(), 0.0, 0.0
    for utterance in utterances:
        start = time.process_time()
        data, cost, parts = _write(model, utterance)
        middle = time.process_time()
        code = read_bytes(model, model.identity, data)
        decoding += time.process_time() - middle
        encoding += middle - start
        same_f0 = utterance.f0_codes is None or np.array_equal(code.f0_codes, utterance.f0_codes)
        if not (same_f0 and np.array_equal(code.units, utterance.units)):
            raise AssertionError(f"{utterance.name} does not decode to what was encoded")
        costs.append(cost)
        bits += parts
        progress()
    seconds = sum(cost["seconds"] for cost in costs)
    long = [cost for cost in costs if cost["seconds"] >= LONG_SECONDS]
    overhead = sum(cost["overhead_bytes"] for cost in costs) / max(len(costs), 1)
    summary = {
        "utterances": len(costs),
        "seconds": round(seconds, 2),
        **_rates(costs),
        "total_bps_from_3s": _rates(long)["total_bps"],
        "most_bps_from_3s": max((_rates([cost])["total_bps"] for cost in long), default=0.0),
        "overhead_bytes_mean": round(overhead, 3),
        **_stored_bps(model, utterances, seconds),
        "parts_bps": {name: _rate(size / 8, seconds) for name, size in sorted(bits.items())},
        "encode_times_real_time": round(seconds / max(encoding, 1e-9), 1),
        "decode_times_real_time": round(seconds / max(decoding, 1e-9), 1),
    }
    return summary, [
        cost | {"seconds": round(cost["seconds"], 4)} | _rates([cost]) for cost in costs
    ]


def run_token_bench(
    model: TokenModel, tokens: Sequence[Tokens], progress: Callable[[], Any] = lambda: None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Codes the tokens of each utterance, decodes them and compares.

    Returns a summary in bits per frame, of the whole bytes that each utterance takes, and of each codebook
    before rounding; and the bytes of each utterance. `progress` is called after each. Raises ValueError if an
    utterance has other codebooks than the model, and AssertionError if it does not decode to itself.
    """
    rows: list[dict[str, Any]] = []
    bits, start = np.zeros(len(model.vocabularies)), time.process_time()
    for one in tokens:
        data, by_codebook = model.encode(one)
        if not np.array_equal(model.decode(data), one.frames):
            raise AssertionError(f"{one.name} does not decode to what was encoded")
        bits += by_codebook
        rows.append({"name": one.name, "frames": len(one.frames), "bytes": len(data)})
        progress()
    elapsed = time.process_time() - start
    frames = max(sum(row["frames"] for row in rows), 1)
    coded = 8 * sum(row["bytes"] for row in rows)
    stored = stored_bits(tokens, model.vocabularies)
    return {
        "utterances": len(rows),
        "frames": frames,
        "vocabularies": list(model.vocabularies),
        "bits_per_frame": round(coded / frames, 3),
        "bits_by_codebook": [round(float(size) / frames, 3) for size in bits],
        **{f"{name}_bits_per_frame": round(size / frames, 3) for name, size in stored.items()},
        "saved_of_fixed": round(1 - coded / max(stored["fixed"], 1), 4),
        "coded_and_decoded_frames_per_second": round(frames / max(elapsed, 1e-9)),
    }, rows


def stored_bits(tokens: Sequence[Tokens], vocabularies: Sequence[int]) -> dict[str, int]:
    """The bits that utterances take without a model: of `fixed` length, the fewest whole bits for each token;
    and as bytes (two or four per token of a large vocabulary) compressed by zlib and xz, each utterance on
    its own (`zlib`, `xz`) and all of them together (`zlib_all`, `xz_all`)."""
    kind = np.min_scalar_type(max(vocabularies) - 1).newbyteorder("<")
    pieces = [one.frames.astype(kind).tobytes() for one in tokens]
    frames = sum(len(one.frames) for one in tokens)
    found = {"fixed": frames * sum((size - 1).bit_length() for size in vocabularies)}
    # LZMA2 alone: the container of an .xz file would add 60 bytes to each utterance.
    xz: dict[str, Any] = {
        "format": lzma.FORMAT_RAW,
        "filters": [{"id": lzma.FILTER_LZMA2, "preset": 9}],
    }
    for suffix, parts in (("", pieces), ("_all", [b"".join(pieces)])):
        found[f"zlib{suffix}"] = 8 * sum(len(zlib.compress(part, 9)) for part in parts)
        found[f"xz{suffix}"] = 8 * sum(len(lzma.compress(part, **xz)) for part in parts)
    return found
