"""--eval-audio: F0 errors and mel L1 of fixed utterances as validation metrics."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from fairseq.logging import metrics
from small_corpus import SPEECH, fairseq_train, train_arguments, write_data, write_f0_data

from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.datasets.unit_dataset import UnitDataset
from fairseq_resynth.data.streams import read_streams
from fairseq_resynth.tasks.validation import (
    ValidationLog,
    check_best_metric,
    log_measures,
    measured_rows,
    nothing_measured,
)


def test_rows_are_fixed_and_spread():
    assert measured_rows(3, 5) == {0, 1, 2}
    assert measured_rows(101, 3) == {0, 50, 100}
    assert measured_rows(101, 1) == {0}


@pytest.mark.parametrize(
    "metric,maximize,number,message",
    [
        (
            "ffe",
            False,
            0,
            "measured on the utterances of --eval-audio, which is 0. Use --eval-audio 5",
        ),
        ("ffe", True, 5, "lower is better, leave out --maximize-best-checkpoint-metric"),
        ("log_f0_correlation", False, 5, "higher is better, add --maximize-best-checkpoint-metric"),
        ("loss", False, -1, "--eval-audio is -1, expected 0 or more"),
    ],
)
def test_settings_that_would_keep_the_wrong_checkpoint(metric, maximize, number, message):
    check_best_metric("ffe", False, 5)
    check_best_metric("log_f0_correlation", True, 5)
    check_best_metric("loss", False, 0)
    with pytest.raises(ValueError, match=message):
        check_best_metric(metric, maximize, number)


class Speaks(torch.nn.Module):
    """Answers with given samples instead of a vocoder's."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, units, **streams):
        wav = np.resize(self.answer, units.size(1) * 320)
        return torch.from_numpy(wav.astype(np.float32))[None, None]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A recording of two seconds as the only row of a data directory; (dataset, samples, directory)."""
    wav = read_audio(sorted(SPEECH.rglob("*.flac"))[0])[:32000]
    data = write_data(tmp_path_factory.mktemp("speech") / "data", {"train": [len(wav)]})
    soundfile.write(data / "wav" / "train_0.wav", wav, 16000, subtype="FLOAT")
    return UnitDataset(data, "train", read_streams(data)), wav, data


def logged(speech, answer) -> dict[str, float]:
    dataset, _, data = speech
    sample = dataset.collater([dataset[0]])
    sums = ValidationLog(str(data), None, 1).evaluate(sample, dataset, Speaks(answer))
    with metrics.aggregate(new_root=True) as meters:
        log_measures([sums])
        log_measures([nothing_measured()])  # another batch, without any of the utterances
    return meters.get_smoothed_values()


def test_a_perfect_copy(speech):
    values = logged(speech, speech[1])
    assert values["vde"] == values["gpe"] == values["ffe"] == values["log_f0_rmse"] == 0
    assert values["log_f0_correlation"] == 1 and values["mel_l1"] < 1e-4


def test_half_the_speed(speech):
    """An octave down: every frame voiced in both is 50 % off, and log-F0 by ln 2 where contours are level."""
    wav = speech[1]
    slow = np.interp(np.arange(len(wav)) / 2, np.arange(len(wav)), wav)
    values = logged(speech, slow)
    assert values["gpe"] > 0.6 and values["ffe"] > values["vde"] > 0
    assert values["log_f0_rmse"] == pytest.approx(np.log(2), rel=0.25)
    assert values["log_f0_correlation"] < 0.9 and values["mel_l1"] > 0.3


def test_nothing_voiced(speech, caplog):
    """Silence: all voiced frames are wrong, and what needs voice on both sides is worse than any number."""
    dataset, wav, _ = speech
    values = logged(speech, np.zeros(10))
    assert 0.1 < values["vde"] == values["ffe"] < 1
    assert values["gpe"] == values["log_f0_rmse"] == np.inf
    assert values["log_f0_correlation"] == -np.inf
    assert not caplog.records
    values = logged(speech, np.full(10, np.nan))
    assert values["ffe"] == pytest.approx(0.5, abs=0.5) and np.isnan(values["mel_l1"])
    assert "counted as unvoiced" in caplog.text


def test_f0_of_the_data_directory_is_used(tmp_path):
    """The cache says 150 Hz where the recording is noise: silence then misses the cache's voiced frames."""
    data = write_f0_data(tmp_path / "data", {"train": [16000] * 2, "valid": [16000, 20480]})
    dataset = UnitDataset(data, "valid", read_streams(data))
    sample = dataset.collater([dataset[0], dataset[1]])
    log = ValidationLog(str(data), None, 2)
    sums = log.evaluate(sample, dataset, Speaks(np.zeros(10)))
    assert sums["weight_vde"] == 200 + 256
    assert sums["sum_vde"] == pytest.approx(160 + 256 - 51)
    assert (
        log.evaluate(sample, dataset, Speaks(np.zeros(10)))["weight_vde"] == 0
    )  # once a validation
    log.begin()
    assert log.evaluate(sample, dataset, Speaks(np.zeros(10))) == sums


def test_best_checkpoint_by_pitch(tiny_data, tmp_path):
    options = ["--max-update", 2, "--best-checkpoint-metric", "ffe", "--eval-audio", 2]
    done = fairseq_train(*train_arguments(tiny_data, tmp_path / "checkpoints", *options))
    valid = json.loads(re.search(r"\{.*valid_ffe.*\}", done.stderr + done.stdout)[0])
    assert 0 <= float(valid["valid_vde"]) <= float(valid["valid_ffe"]) <= 1
    assert {"valid_gpe", "valid_log_f0_rmse", "valid_log_f0_correlation", "valid_mel_l1"} <= set(
        valid
    )
    state = torch.load(tmp_path / "checkpoints" / "checkpoint_best.pt", weights_only=True)
    assert state["extra_state"]["best"] == pytest.approx(float(valid["valid_ffe"]), abs=1e-3)


def test_refused_by_fairseq_train(tiny_data, tmp_path):
    options = ["--best-checkpoint-metric", "ffe", "--eval-audio", 0]
    done = fairseq_train(*train_arguments(tiny_data, tmp_path, *options), check=False)
    assert done.returncode != 0 and "Use --eval-audio 5" in done.stderr
