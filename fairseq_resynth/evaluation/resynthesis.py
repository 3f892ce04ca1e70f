"""Speech from a bundle, timed by stage, and from `.rsyn` files, with their bits."""

from pathlib import Path

from fairseq_resynth.evaluation.pairing import Collection

CODES = ".rsyn"


def holds_codes(folder: Path) -> bool:
    """Tells whether there are `.rsyn` files under a folder."""
    return folder.is_dir() and any(folder.rglob(f"*{CODES}"))


def decode_folder(bundle: str | None, folder: Path, outdir: Path) -> tuple[Collection, list[str]]:
    """To come."""
    raise NotImplementedError


def resynthesise(
    bundle: str, content_checkpoint: str | None, reference: Collection, outdir: Path
) -> tuple[Collection, list[str]]:
    """To come."""
    raise NotImplementedError
