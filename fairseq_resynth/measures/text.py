"""Text normalization and edit distances."""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

NORMALIZER = "basic 1"


def normalize(text: str) -> str:
    """Lower-cases text and keeps letters, digits and apostrophes inside words, in any script.

    Reports call it `basic 1`: NFKC, case folding, every other character becomes a space, runs of spaces
    become one. Numerals are not spelled out and British spelling is kept, so transcripts should be written
    as spoken.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = "".join(letter if _is_kept(letter) else " " for letter in folded)
    return " ".join(word for word in (part.strip("'") for part in kept.split()) if word)


def _is_kept(letter: str) -> bool:
    return letter == "'" or unicodedata.category(letter)[0] in "LMN"


def edit_distance(reference: Sequence, hypothesis: Sequence) -> int:
    """Levenshtein distance: the smallest number of substitutions, deletions and insertions."""
    codes = {item: index for index, item in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    columns = np.array([codes[item] for item in hypothesis], dtype=int)
    index = np.arange(len(columns) + 1)
    row = index.copy()
    for item in reference:
        candidate = row + 1
        candidate[1:] = np.minimum(candidate[1:], row[:-1] + (columns != codes[item]))
        # The best number of insertions from the left, for the whole row at once.
        row = np.minimum.accumulate(candidate - index) + index
    return int(row[-1])


def error_rates(
    reference: str, hypothesis: str, normalizer: Callable[[str], str] = normalize
) -> dict[str, float]:
    """Word and character error rates of normalized text. `wer` = word edits / `words`, `cer` = character
    edits / `characters` (one space between words counts as a character). Both can exceed 1, and are NaN if
    the reference has no words."""
    said, heard = (" ".join(normalizer(text).split()) for text in (reference, hypothesis))
    words, characters = len(said.split()), len(said)
    if not words:
        return {"wer": float("nan"), "cer": float("nan"), "words": 0, "characters": 0}
    return {
        "wer": edit_distance(said.split(), heard.split()) / words,
        "cer": edit_distance(said, heard) / characters,
        "words": words,
        "characters": characters,
    }
