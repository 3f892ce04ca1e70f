"""Jobs out of files of units, for models whose hops do not divide each other."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_resynth.data.storage.files import check_file_name
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.synthesis import Job, read_jobs, write_wavs


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


@pytest.mark.parametrize(
    "codes,streams,complaint",
    [
        ("0 1 2 3", (320, 3, 640, 5), "unit of b: found 3, the model has 0 to 2"),
        ("0 1 2 5", (320, 9, 640, 5), "pitch code of b: found 5, the model has 0 to 4"),
        ("0", (320, 9, 640, 5), "b has 1 pitch codes, expected 2 or more for its 4 units"),
    ],
)
def test_streams_that_the_model_does_not_have_are_named(codes, streams, complaint, tmp_path):
    """A user learned that there was a unit of 600, and not in which of 10,000 lines."""
    (tmp_path / "in.txt").write_text("a|0 1 2\nb|0 1 2 3\n")
    (tmp_path / "in.f0").write_text(f"0 0\n{codes}\n")
    with pytest.raises(ValueError, match=f"in.txt: {complaint}"):
        read_jobs(tmp_path / "in.txt", StreamSpec(*streams))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("c" * 252, "too long for a file: it has 256 bytes with its suffix, 256 in one part"),
        ("a/" + "é" * 126 + "/b", None),
        ("a/" + "é" * 128 + "/b", "has 262 bytes with its suffix, 256 in one part"),
        ("a/" * 1600 + "b", "expected at most 3000, and 255 in each part"),
        ("a\0b", "has characters that no file name can have"),
        ("\ud800", "has characters that no file name can have"),
        ("a/../../b", "points outside the output folder"),
        ("/tmp/b", "points outside the output folder"),
    ],
)
def test_names_of_inputs_that_no_output_file_can_have(name, complaint, tmp_path):
    """Mutated units: an error of the file system came after the first file had been written."""
    if complaint is None:
        return check_file_name(name, ".wav")
    with pytest.raises(ValueError, match=complaint):
        check_file_name(name, ".wav")
    jobs = [Job(one, Utterance(np.arange(3))) for one in ("a", name)]
    with pytest.raises(ValueError, match=complaint):
        write_wavs(None, jobs, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
    with Record(tmp_path) as record:
        record.make(outcome := Outcome(), f"{name}.wav", ["key"], Path.touch)
        with pytest.raises(ValueError, match=complaint), record.writing(f"{name}.wav", "key"):
            pass
    assert list(outcome.failed) == [f"{name}.wav"] and not list(tmp_path.rglob("*.wav"))


def test_the_line_of_a_name_that_is_too_long(tmp_path):
    (tmp_path / "units.txt").write_text(f"a|1 2 2\n{'9' * 300}|1 2 2\n")
    with pytest.raises(ValueError, match="units.txt:2: the name '9999.*too long"):
        read_jobs(tmp_path / "units.txt", StreamSpec(320, 10))


def test_a_file_that_is_the_folder_of_another(tmp_path):
    jobs = [Job(name, Utterance(np.arange(3))) for name in ("a", "a.wav/b")]
    with pytest.raises(
        ValueError, match=r"a.wav would be both a file and the folder of a.wav/b.wav"
    ):
        write_wavs(None, jobs, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
