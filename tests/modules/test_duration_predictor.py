"""Durations: fairseq's weights and outputs, what the loss leaves out, padding, rate."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from fairseq.models.text_to_speech.fastspeech2 import VariancePredictor

from fairseq_resynth.data.units import collapse_runs
from fairseq_resynth.modules.duration_predictor import (
    DurationPredictor,
    duration_loss,
    expand_counts,
    find_runs,
)


def test_equals_fairseqs_variance_predictor():
    torch.manual_seed(1)
    sizes = {"encoder_embed_dim": 12, "var_pred_hidden_dim": 20, "var_pred_kernel_size": 3}
    theirs = VariancePredictor(Namespace(**sizes, var_pred_dropout=0.5)).eval()
    ours = DurationPredictor(12, 20, 3).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 12, 9)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)), atol=1e-6, rtol=0)


def test_padding_changes_nothing():
    torch.manual_seed(2)
    predictor = DurationPredictor(6, 8).eval()
    x = torch.randn(2, 6, 10)
    together = predictor(x, torch.tensor([10, 4]))
    torch.testing.assert_close(together[1, :4], predictor(x[1:, :, :4])[0], atol=1e-6, rtol=0)
    assert not torch.allclose(predictor(x)[1, :4], together[1, :4])  # the mask does something


def test_runs_with_padding():
    units = torch.tensor([[4, 4, 7, 7, 7, 4], [1, 2, 2, 9, 9, 9]])
    collapsed, counts, num_runs = find_runs(units, torch.tensor([6, 3]))
    assert collapsed.tolist() == [[4, 7, 4], [1, 2, 0]]
    assert counts.tolist() == [[2, 3, 1], [1, 2, 0]]
    assert num_runs.tolist() == [3, 2]


def test_loss_leaves_out_first_and_last_run_of_each_row():
    counts = torch.tensor([[5, 3, 1, 8], [2, 4, 9, 0]])
    num_runs = torch.tensor([4, 3])
    predicted = torch.zeros(2, 4)
    expected = (np.log(4) ** 2 + np.log(2) ** 2 + np.log(5) ** 2) / 3
    assert float(duration_loss(predicted, counts, num_runs)) == pytest.approx(expected)
    predicted[0, 0] = predicted[0, 3] = predicted[1, 2] = predicted[1, 3] = 100.0
    assert float(duration_loss(predicted, counts, num_runs)) == pytest.approx(expected)
    assert float(duration_loss(predicted[:, :2], counts[:, :2], torch.tensor([2, 1]))) == 0


def test_counts_round_and_scale():
    log_counts = torch.log(torch.tensor([1.2, 1.0, 4.4, 11.0]))
    assert expand_counts(log_counts).tolist() == [1, 1, 3, 10]
    assert expand_counts(log_counts, 2.0).tolist() == [1, 1, 2, 5]
    assert expand_counts(log_counts, 0.5).tolist() == [1, 1, 7, 20]
    with pytest.raises(ValueError, match="rate is 0"):
        expand_counts(log_counts, 0)


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="expected an odd number"):
        DurationPredictor(kernel_size=4)


def test_collapse_runs():
    units, counts = collapse_runs([0, 0, 5, 5, 5, 0, 2])
    assert units.tolist() == [0, 5, 0, 2]
    assert counts.tolist() == [2, 3, 1, 1]
    assert np.repeat(units, counts).tolist() == [0, 0, 5, 5, 5, 0, 2]
    assert [part.tolist() for part in collapse_runs([])] == [[], []]
