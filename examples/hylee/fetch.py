"""Write the recordings of a Hugging Face data set: first channel, 16 kHz, cut into pieces."""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import soundfile

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.data.audio.files import resample, write_audio


def read_first_channel(entry: dict) -> np.ndarray:
    """The (T,) float32 samples at 16 kHz of an audio entry, {"bytes", "path"}."""
    source = io.BytesIO(entry["bytes"]) if entry.get("bytes") else entry["path"]
    wav, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return resample(np.ascontiguousarray(wav[:, 0]), rate)


def pieces(wav: np.ndarray, minutes: float) -> list[np.ndarray]:
    """Cuts a recording; a remainder of less than half a piece joins the last piece."""
    length = int(minutes * 60 * SAMPLE_RATE) // 1280 * 1280
    starts = list(range(0, max(1, len(wav) - length // 2), length)) if length else [0]
    return [wav[start : stop or None] for start, stop in zip(starts, [*starts[1:], 0], strict=True)]


def main() -> int:
    """Loads, cuts and writes the recordings that do not exist yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="name on the hub, or the folder of a data set")
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--column", default="audio")
    parser.add_argument("--minutes", type=float, default=0.25, help="0: whole recordings")
    args = parser.parse_args()
    try:
        import datasets
    except ImportError:
        print(
            "fetch.py: error: the package datasets is missing: run pip install 'fairseq_resynth[hylee]'",
            file=sys.stderr,
        )
        return 2
    datasets.logging.set_verbosity_error()
    try:
        rows = datasets.load_dataset(args.dataset, split=args.split)
    except (OSError, ValueError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        print(
            f"fetch.py: error: {args.dataset} cannot be loaded: {reason}. Where a network is available, run "
            f"`hf download --repo-type dataset {args.dataset} --local-dir FOLDER` and set DATASET=FOLDER.",
            file=sys.stderr,
        )
        return 2
    rows = rows.cast_column(args.column, datasets.Audio(decode=False))
    size = sum(len(row[args.column]["bytes"] or b"") for row in rows.take(1)) * len(rows)
    print(f"{args.dataset}: {len(rows)} recordings, about {size / 1e6:.0f} MB encoded")
    for index, row in enumerate(rows):
        if (args.outdir / f"audio_{index}_0000.flac").is_file():
            continue
        parts = pieces(read_first_channel(row[args.column]), args.minutes)
        # The first piece is written last: its file marks the recording as complete.
        for number, wav in reversed(list(enumerate(parts))):
            write_audio(args.outdir / f"audio_{index}_{number:04}.flac", wav)
    return 0


if __name__ == "__main__":
    sys.exit(main())
