"""Jobs out of files of units, for models whose hops do not divide each other."""

import numpy as np
import pytest

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.synthesis import read_jobs


@pytest.fixture
def unit_file(tmp_path):
    line = {"audio": "a.wav", "hubert": "0 1 2 3 4 5 6 7", "f0": [0, 1, 2, 3, 4, 5, 6, 7]}
    (tmp_path / "units.txt").write_text(f"{line}\n")
    return tmp_path / "units.txt"


@pytest.mark.parametrize("hop", [40, 160, 200, 441])
def test_the_pitch_of_a_unit_lasts_as_long_as_the_unit(unit_file, hop):
    (job,) = read_jobs(unit_file, StreamSpec(hop, 10, f0_channels=1))
    (values,) = job.speech.f0
    assert len(values) == -(-8 * hop // 80)
    middles = np.arange(len(values)) * 80 + 40
    np.testing.assert_array_equal(values, np.minimum(middles // hop, 7))
    (job,) = read_jobs(unit_file, StreamSpec(hop, 10, 1280, 8))
    assert len(job.speech.f0_codes) == -(-8 * hop // 1280)
