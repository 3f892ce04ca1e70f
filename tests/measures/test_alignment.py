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
    np.testing.assert_array_equal(warping_path(cost), expected[::-1])


def test_an_empty_matrix_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        warping_path(np.zeros((0, 4)))
