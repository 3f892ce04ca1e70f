"""Byte-pair encoding of units: fewer tokens for a language model.

It is lossless for units without repeats; repeats are removed first.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from fairseq_resynth.data.storage.files import atomic_path, reading
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.data.units import collapse_runs

# A unit is a character, from the first of a block of 20 000 letters that no normalization changes.
FIRST, LIMIT = 0x4E00, 20000
SPECIAL_PIECES = 3  # <unk>, <s>, </s>


def _collapsed_text(units: Sequence[int] | np.ndarray, num_units: int) -> str:
    """A character per run of the same unit. Raises ValueError if a unit is outside 0 … num_units - 1."""
    units = collapse_runs(units)[0]
    if len(units) and not 0 <= units.min() <= units.max() < num_units:
        raise ValueError(f"found units up to {units.max()}, expected 0 to {num_units - 1}.")
    return "".join(chr(FIRST + int(unit)) for unit in units)


def train_bpe(rows: Iterable[np.ndarray], num_units: int, vocab_size: int, path: str | Path) -> int:
    """Trains a sentencepiece BPE model on units whose repeats are collapsed; returns its number of tokens.
    All units below `num_units` can be encoded, whether they occur in the rows or not. Raises ValueError if
    the rows have others. `vocab_size` includes a token for each unit and three special ones."""
    if not 0 < num_units <= LIMIT:
        raise ValueError(f"{num_units} units: expected 1 to {LIMIT}.")
    if vocab_size <= num_units + SPECIAL_PIECES:
        raise ValueError(
            f"--vocab-size is {vocab_size}: {num_units} units and {SPECIAL_PIECES} special tokens are in it, "
            f"expected at least {num_units + SPECIAL_PIECES + 1}."
        )
    texts = [_collapsed_text(row, num_units) for row in rows]
    # sentencepiece encodes only characters that it has seen, hence a line with every unit.
    texts.append(_collapsed_text(np.arange(num_units), num_units))
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=stream,
                model_type="bpe",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                split_by_unicode_script=False,
                split_by_whitespace=False,
                split_by_number=False,
                max_sentence_length=1 << 24,
                max_sentencepiece_length=64,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"sentencepiece cannot make {vocab_size} tokens of {len(texts) - 1} utterances: "
                f"{one_line(error)}"
            ) from error
    return UnitBpe(path).vocab_size


class UnitBpe:
    """A model that `train_bpe` wrote, with `vocab_size` tokens for `num_units` units. Raises
    FileNotFoundError if the file does not exist, and ValueError if it is not such a model."""

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist. Make it with `resynth bpe train`.")
        with reading(path, "a sentencepiece model"):
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
            self.vocab_size = self._model.vocab_size()
            pieces = [self._model.id_to_piece(index) for index in range(self.vocab_size)]
        units = [ord(piece) - FIRST for piece in pieces if len(piece) == 1]
        self.num_units = max([unit for unit in units if 0 <= unit < LIMIT], default=-1) + 1
        if not self.num_units:
            raise ValueError(f"{path} is a sentencepiece model of text, not of units.")

    def encode(self, units: Sequence[int] | np.ndarray) -> np.ndarray:
        """Collapses the repeats of (U,) units and encodes them as (n,) int64 tokens. Raises ValueError if the
        model does not know a unit."""
        text = _collapsed_text(units, self.num_units)
        return np.array(self._model.encode(text, out_type=int), dtype=np.int64)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """The (R,) int64 units, without repeats, of (n,) tokens. Raises ValueError if one has no units."""
        tokens, last = [int(token) for token in tokens], self.vocab_size - 1
        for token in tokens:
            if not SPECIAL_PIECES <= token <= last:
                raise ValueError(
                    f"token {token} stands for no unit, expected {SPECIAL_PIECES} to {last}."
                )
        text = "".join(self._model.id_to_piece(token) for token in tokens)
        return np.array([ord(letter) - FIRST for letter in text], dtype=np.int64)
