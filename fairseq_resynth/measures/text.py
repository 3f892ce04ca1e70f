"""Text normalization and edit distances."""

import unicodedata
from collections.abc import Callable, Hashable, Sequence

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
    """Levenshtein distance: the smallest number of substitutions, deletions and insertions.

    A row of the table is the differences between neighbors in it, two bits each, in integers of any length:
    Myers, "A fast bit-vector algorithm for approximate string matching" (JACM 46(3), 1999), with the carry
    into the first column that compares the whole of both (Hyyrö, 2003).
    """
    columns: dict[Hashable, int] = {}  # item -> a bit for each of its places in the hypothesis
    for place, item in enumerate(hypothesis):
        columns[item] = columns.get(item, 0) | 1 << place
    distance, every = len(hypothesis), (1 << len(hypothesis)) - 1
    if not distance:
        return len(reference)
    last = 1 << distance - 1
    rises, falls = every, 0  # from one row of the hypothesis to the next
    for item in reference:
        equal = columns.get(item, 0)
        vertical = equal | falls
        horizontal = (((equal & rises) + rises) ^ rises) | equal
        more, less = falls | every & ~(horizontal | rises), rises & horizontal
        distance += bool(more & last) - bool(less & last)
        more, less = more << 1 | 1, less << 1
        rises, falls = (less | ~(vertical | more)) & every, more & vertical & every
    return distance


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
