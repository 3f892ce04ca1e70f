"""Dynamic time warping against librosa's."""

import librosa
import numpy as np
import pytest

from fairseq_resynth.measures.alignment import warping_path


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (7, 9), (60, 40)])
@pytest.mark.parametrize("ties", [True, False])
def test_the_path_equals_librosas(shape, ties):
    rng = np.random.default_rng(sum(shape))
    cost = rng.integers(0, 3, shape) + (0 if ties else 1) * rng.random(shape)
    _, expected = librosa.sequence.dtw(C=cost)
    found = warping_path(lambda row, column: cost[row, column], *shape)
    np.testing.assert_array_equal(found, expected[::-1])


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="found 0 rows and 4 columns"):
        warping_path(lambda row, column: 0.0 * row, 0, 4)
