"""F0 codes of a data folder: what `resynth quantize-f0` does."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_resynth.data.f0 import F0_HOP, F0Cache
from fairseq_resynth.data.files import file_hash, read_json
from fairseq_resynth.data.manifest import Manifest, read_lines, read_manifest
from fairseq_resynth.data.sharding import (
    Shard,
    close_part,
    join_parts,
    open_part,
    rows_hash,
    whole_lines,
)
from fairseq_resynth.data.speakers import SpeakerStatistics
from fairseq_resynth.data.units import format_integers
from fairseq_resynth.data.workers import progress


class F0Encoder(Protocol):
    """What is needed of `modules.f0_vqvae.F0Vqvae`."""

    num_codes: int
    stride: int

    def encode(self, f0: Tensor) -> Tensor:
        """(B, 1, N) normalised F0 to (B, N / stride) codes."""


def weights_hash(module: nn.Module) -> str:
    """Returns 16 hexadecimal digits of a module's weights, the same from a checkpoint and from a bundle."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encode_f0(f0_vqvae: F0Encoder, f0: np.ndarray) -> np.ndarray:
    """Quantises one utterance's pitch.

    Alone, not in a batch: beside a longer one, the convolutions would see more than zeros after its end.

    Args:
        f0_vqvae: the quantiser, in evaluation mode.
        f0: (N,) float32, normalised by speaker.

    Returns:
        (ceil(N / stride),) int64; the last code's missing frames are unvoiced.
    """
    padded = np.pad(np.asarray(f0, dtype=np.float32), (0, -len(f0) % f0_vqvae.stride))
    return f0_vqvae.encode(torch.from_numpy(padded)[None, None])[0].numpy()


def describe(f0_vqvae: F0Encoder, checkpoint: str | Path) -> dict[str, Any]:
    """Returns what `f0_codes.json` says of the quantiser."""
    return {
        "checkpoint": Path(checkpoint).name,
        "vqvae_hash": weights_hash(f0_vqvae),
        "num_codes": f0_vqvae.num_codes,
        "f0_code_hop": f0_vqvae.stride * F0_HOP,
        "normalize": "speaker_zscore",
    }


class F0CodeWriter:
    """Writes `{split}.f0` of a data folder.

    Args:
        data_dir: with `f0/` and `speakers.json`.
        f0_vqvae: the quantiser, in evaluation mode.
        checkpoint: where it came from, for the record.

    Raises:
        FileNotFoundError, ValueError: no usable `speakers.json`.
    """

    def __init__(self, data_dir: str | Path, f0_vqvae: F0Encoder, checkpoint: str | Path):
        self.data, self.f0_vqvae = Path(data_dir), f0_vqvae
        self.statistics = SpeakerStatistics.load(self.data / "speakers.json")
        self.description = describe(f0_vqvae, checkpoint)

    def _key(self, manifest: Manifest, cache: F0Cache) -> dict[str, Any]:
        speakers = file_hash(self.data / "speakers.json")
        made_by = {key: self.description[key] for key in ("vqvae_hash", "num_codes", "f0_code_hop")}
        return {
            "rows": rows_hash(manifest),
            **made_by,
            "f0": cache.description,
            "speakers": speakers,
        }

    def write(self, split: str, shard: Shard | None = None) -> dict[str, Any]:
        """Quantises a split, or this shard's rows of it, and joins the parts if it was the last.

        Returns:
            {"rows", "reused", "joined"}.

        Raises:
            FileNotFoundError, ValueError: F0 or speakers are missing or do not fit the manifest.
        """
        shard = shard or Shard()
        manifest = read_manifest(self.data / f"{split}.tsv")
        cache = F0Cache(self.data, split, manifest)
        target, key = self.data / f"{split}.f0", self._key(manifest, cache)
        rows, digest = shard.rows(len(manifest)), _digest(key)
        if self._is_finished(target, digest):
            return {"rows": len(rows), "reused": len(rows), "joined": True}
        part = open_part(target, shard, key)
        done = whole_lines(part)
        with part.open("a") as stream:
            lines = self._lines(manifest, cache, rows[done:])
            for line in progress(lines, len(rows), f"quantize-f0 {split}", done):
                stream.write(line)
        close_part(target, shard, key, self._beside(target, digest))
        return {"rows": len(rows), "reused": done, "joined": join_parts(target, shard.count, key)}

    def _lines(self, manifest: Manifest, cache: F0Cache, rows: range) -> Iterator[str]:
        names = read_lines(
            manifest.source.with_suffix(".speaker"), len(manifest), "resynth manifest"
        )
        for row in rows:
            f0 = self.statistics.normalize(cache[row], names[row].strip())
            yield format_integers(encode_f0(self.f0_vqvae, f0)) + "\n"

    def _beside(self, target: Path, digest: str) -> dict[str, Any]:
        return {"f0_codes.json": {**self.description, "rows": {target.stem: digest}}}

    def _is_finished(self, target: Path, digest: str) -> bool:
        path = target.with_name("f0_codes.json")
        found = read_json(path) if path.is_file() else {}
        same = found.get("vqvae_hash") == self.description["vqvae_hash"]
        return same and target.is_file() and found.get("rows", {}).get(target.stem) == digest


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
