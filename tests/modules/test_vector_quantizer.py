"""The running means of `VectorQuantizer`: dead codes, dummy batches and vectors that do not count."""

import pytest
import torch

from fairseq_resynth.modules import quantizers
from fairseq_resynth.modules.quantizers import VectorQuantizer


@pytest.fixture
def gathered(monkeypatch):
    """How many rows each call gathered over the processes."""
    calls, gather = [], quantizers._gather_rows

    def count(rows):
        calls.append(len(rows))
        return gather(rows)

    monkeypatch.setattr(quantizers, "_gather_rows", count)
    return calls


def vectors(seed):
    return torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(seed))


def test_rows_are_gathered_only_when_a_code_is_dead(gathered):
    quantizer = VectorQuantizer(4, 3, decay=0.5, threshold=0.1)
    for seed in range(5):
        quantizer(vectors(seed))
    assert gathered == [80]  # the first batch alone: it starts the codebook
    quantizer.running_count[2] = 0
    quantizer.running_sum[2] = 0
    quantizer.codebook[2] = 1e6
    before = quantizer.codebook[2].clone()
    quantizer(vectors(5))
    assert gathered == [80, 80] and not torch.equal(quantizer.codebook[2], before)
    assert quantizer.codebook.abs().max() < 10


def test_batches_that_do_not_count_move_nothing():
    quantizer = VectorQuantizer(4, 3)
    quantizer.counts_batches = False
    for counts in (False, True, False):  # before the first step, and after it
        before = {name: value.clone() for name, value in quantizer.state_dict().items()}
        quantizer.counts_batches = counts
        _, _, commitment = quantizer(vectors(0))
        after = quantizer.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before) != counts
        assert torch.isfinite(commitment)
    assert quantizer.num_steps == 1


def test_masked_vectors_do_not_count():
    alone, padded = VectorQuantizer(4, 3), VectorQuantizer(4, 3)
    x, mask = vectors(0), torch.zeros(2, 40, dtype=torch.bool)
    mask[:, :25] = True
    for _ in range(3):
        alone(x[:, :, :25])
        padded(x, mask)
    assert torch.equal(alone.codebook, padded.codebook)
