"""Where the bits of a file go, by stream and over time."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format import bitstream
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.measures.figures import new_figure, save_figure

PARTS = {
    "units": "content units",
    "runs": "how long each unit lasts",
    "f0": "pitch codes",
    "end": "end marks",
    "samples": "number of samples",
}


@dataclass(frozen=True)
class Inspection:
    """The content of a file and its cost."""

    summary: dict[str, Any]  # plain JSON types
    bits: np.ndarray  # (U,) float, bits spent up to the end of each unit
    unit_seconds: float


def inspect(model: EntropyModel, identity: bytes, data: bytes, checksum: bool = True) -> Inspection:
    """Decodes the streams of a file and counts their bits; arguments and errors are `read_bytes`'s."""
    reader = bitstream.FileReader(model, identity, checksum)
    reader.feed(data, complete=True)
    coder, units = reader.coder, np.array(reader.coder.units, dtype=np.int64)
    hop, rate = model.settings.unit_hop, model.settings.sample_rate
    seconds = len(units) * hop / rate
    rows = {"header": 24.0, "checksum": 24.0 if checksum else 0.0}
    rows["speaker"] = (reader.header.size - 1 - bitstream.IDENTITY_BYTES) * 8.0
    rows |= {name: coder.bits[name] for name in PARTS}
    rows["rounding to bytes"] = 8 * len(data) - sum(rows.values())
    summary = {
        "bytes": len(data),
        "seconds": round(seconds, 3),
        "samples": coder.num_samples,
        "model": identity.hex()[:8],
        "speaker": _describe(reader.speaker),
        "num_units": len(units),
        "num_runs": int(np.count_nonzero(np.diff(units))) + bool(len(units)),
        "num_f0_codes": len(coder.f0_codes) if reader.header.has_f0 else None,
        "bits": {name: round(bits, 2) for name, bits in rows.items()},
        "bps": {name: round(bits / seconds, 2) if seconds else 0.0 for name, bits in rows.items()},
        "total_bps": round(8 * len(data) / seconds, 2) if seconds else 0.0,
    }
    return Inspection(summary, np.array(coder.bits_by_unit[: len(units)]), hop / rate)


def header(data: bytes) -> dict[str, Any]:
    """What a file tells without its model, as plain JSON types; CodecError if it is not a `.rsyn` file."""
    found = bitstream.read_header(data, data[1:])
    if len(data) < found.size + bitstream.CHECKSUM_BYTES:
        raise CodecError("the file is truncated: its checksum is missing")
    return {
        "bytes": len(data),
        "format": 1,
        "model": data[1 : 1 + bitstream.IDENTITY_BYTES].hex(),
        "speaker": _describe(found.speaker),
        "f0": found.has_f0,
        "stream_bytes": len(data) - found.size - bitstream.CHECKSUM_BYTES,
    }


def _describe(speaker: int | np.ndarray | None) -> Any:
    return f"vector of {len(speaker)}" if isinstance(speaker, np.ndarray) else speaker


def table(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of text: what the file is, then its bits by stream."""
    lines = [
        f"{summary['bytes']} bytes, {summary['seconds']} s ({summary['num_units']} units in "
        f"{summary['num_runs']} runs, {summary['num_f0_codes'] or 'no'} F0 codes), "
        f"{summary['samples']} samples, speaker {summary['speaker']}, model {summary['model']}",
        f"{'stream':<28}{'bits':>10}{'bit/s':>10}{'share':>8}",
    ]
    total = max(8 * summary["bytes"], 1)
    for name, bits in summary["bits"].items():
        rate = summary["bps"][name]
        lines.append(f"{PARTS.get(name, name):<28}{bits:>10.1f}{rate:>10.1f}{bits / total:>8.1%}")
    lines.append(f"{'file':<28}{total:>10}{summary['total_bps']:>10.1f}{1:>8.0%}")
    return lines


def plot(inspection: Inspection, path: str) -> None:
    """Draws the bit rate over time and the shares of the streams into an image file."""
    figure = new_figure(9, 5, layout="constrained")
    over_time, shares = figure.subplots(2, 1, height_ratios=(3, 1))
    spent = np.diff(inspection.bits, prepend=0.0)
    step = inspection.unit_seconds
    times, frames = np.arange(len(spent)) * step, max(1, round(0.5 / step))
    over_time.bar(times, spent, width=step, color="#9bbcd8", label="bits per unit")
    over_time.set(xlabel="seconds", ylabel="bits", xlim=(0, max(len(spent) * step, step)))
    rate = over_time.twinx()
    if len(spent) >= frames:
        smooth = np.convolve(spent, np.ones(frames) / frames, "same")
        rate.plot(times, smooth / step, color="#b0413e")
    rate.set_ylabel("bit/s over half a second", color="#b0413e")
    left = 0.0
    for name, bits in inspection.summary["bits"].items():
        shares.barh([0], [bits], left=left, label=f"{PARTS.get(name, name)} {bits:.0f}")
        left += bits
    shares.set(yticks=[], xlabel="bits")
    shares.legend(ncols=4, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.5))
    save_figure(figure, path)
