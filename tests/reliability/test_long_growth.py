"""Memory per file and per minute, and progress bars that show what was done."""

import json
import math
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import tqdm.std

from fairseq_resynth.data.manifest import Manifest
from fairseq_resynth.data.pitch import representations
from fairseq_resynth.data.storage import resume
from fairseq_resynth.data.storage.parts import LinesPart
from fairseq_resynth.data.storage.resume import FOLDER, Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.workers import progress, skip
from fairseq_resynth.evaluation.metrics.metric import Comparison
from fairseq_resynth.evaluation.metrics.signal import MelCepstralDistortion
from fairseq_resynth.measures import alignment, spectral
from fairseq_resynth.preparation import preprocess


def taken(make) -> tuple[int, int]:
    """The bytes that the result of `make` holds, and the most that it took meanwhile."""
    tracemalloc.start()
    try:
        made = make()
        found = tracemalloc.get_traced_memory()
        del made
        return found
    finally:
        tracemalloc.stop()


def test_a_record_holds_less_than_a_kilobyte_per_file(tmp_path):
    """Of `resynth preprocess`, which has three lines per file; as parsed JSON they took 2.6 kB."""
    (tmp_path / FOLDER).mkdir()
    lines, files = [], 2000
    for number in range(files):
        name, key = f"speaker_{number % 100:04d}/{number:08d}.flac", f"{number:024x}"
        status = [12345, 1_700_000_000_000_000_000 + number]
        lines += [
            {"input": f"/data/corpus/recordings/{name}", "is": [*status, status[1], key[:16]]},
            {"made": name, "by": key, "is": [*status, key[:16]], "facts": {}},
            {"made": "", "by": key + name, "is": None, "facts": {"files": [name], "notes": []}},
        ]
    file = tmp_path / FOLDER / "host.1.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    held, most = taken(lambda: Record(tmp_path))
    assert held < 1000 * files and most < 1100 * files


def test_preprocess_holds_less_than_a_kilobyte_per_file(tmp_path, monkeypatch):
    """Its paths, and what it records."""

    def process(file, source, out, options):
        (out / file[1]).write_text(str(file[1]))
        return {str(file[1]): 1.0}, []

    monkeypatch.setattr(preprocess, "_process", process)
    monkeypatch.setattr(resume, "_CLOCK", -1e6)  # as if the recordings were old
    files, source, out = 300, tmp_path / "recordings", tmp_path / "made"
    for folder in (source, out):
        (folder / "speaker_0001").mkdir(parents=True)
    for number in range(files):
        (source / "speaker_0001" / f"{number:08d}.flac").write_text(str(number))
    first = preprocess.preprocess(source, out, preprocess.PreprocessOptions(), shard=Shard(1, 300))
    assert first.written == 1  # what is imported and kept whatever the number of files
    run = lambda: preprocess.preprocess(source, out, preprocess.PreprocessOptions())  # noqa: E731
    assert taken(run)[1] < 1000 * files


def test_hashes_of_recordings_do_not_wait_for_the_end_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_CLOCK", -1e6)  # as if the recordings were old
    names = [f"{number}.wav" for number in range(1200)]
    for name in names:
        (tmp_path / name).touch()
    manifest, record = (
        Manifest(tmp_path / "train.tsv", tmp_path, names, [320] * 1200),
        Record(tmp_path),
    )
    waiting = []
    with LinesPart(record, "train.units", manifest, Shard(), {}, {}) as part:
        for row in part.rows:
            part.append({row: "1"}, {row: part.stamp(row)})
            waiting.append(len(record._waiting))
    assert 100 < max(waiting) <= 1000 and waiting[-1] < 300


def test_what_was_done_before_counts_but_says_nothing_of_the_rest(monkeypatch):
    """Of a thousand files, 900 are reused at once, and each other file takes a second."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    monkeypatch.setattr("fairseq_resynth.data.storage.workers.time.time", lambda: now[0])
    with progress(None, 1000, "made") as bar:
        skip(bar, 900)
        assert bar.n == 900
        for _ in range(20):
            now[0] += 1
            bar.update()
        assert bar.n == 920 and bar.format_dict["rate"] == pytest.approx(1)
        skip(bar, 10)
        now[0] += 1
        bar.update()
        assert bar.n == 931 and bar.format_dict["rate"] == pytest.approx(1)


def test_mel_cepstra_of_long_recordings_take_little_more_than_the_recording(monkeypatch):
    """They took 100 MB per minute when they were computed at once."""
    monkeypatch.setattr(spectral, "_newton", lambda cepstrum, *rest: cepstrum)
    wav = np.zeros(60 * 16000, np.float32)
    spectral.mel_cepstrum(wav[:2048])  # what is kept for later calls
    assert taken(lambda: spectral.mel_cepstrum(wav))[1] < 6 * wav.nbytes


def test_quantiles_of_f0_hold_a_bounded_number_of_frames(monkeypatch):
    """Ten times as many utterances take no more memory, and the bins are those of all frames."""
    monkeypatch.setattr(representations, "MOST_VALUES", 10_000, raising=False)
    entry = {"f0_mean": 140.0, "f0_std": 40.0}

    def rows(count):
        rng = np.random.default_rng(0)
        for _ in range(count):
            f0 = np.exp(rng.normal(np.log(140), 0.3, rng.integers(500, 1500))).astype(np.float32)
            yield np.where(rng.random(len(f0)) < 0.5, f0, 0), entry

    fit = lambda count: representations.QuantileF0.fit(rows(count), 32, 1280)  # noqa: E731
    bins = fit(500)
    few, many = taken(lambda: fit(50))[1], taken(lambda: fit(500))[1]
    assert many < 1.5 * few
    codes = np.concatenate([bins.encode(np.repeat(f0, 16), entry) for f0, _ in rows(10)])
    assert np.abs(np.bincount(codes)[1:] / (codes > 0).sum() * 32 - 1).max() < 0.25


PEAK = """
import resource, sys
import numpy as np
from fairseq_resynth.measures import spectral
function, noise = getattr(spectral, sys.argv[1]), np.random.default_rng(0)
def peak(seconds):
    function(*noise.standard_normal((2, 16000 * seconds), np.float32))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = peak(20)
print((peak(120) - few) / 1024)
"""


@pytest.mark.parametrize("distance", ["mel_l1_distance", "multi_resolution_stft"])
def test_spectral_distances_of_long_recordings_hold_few_spectra(distance):
    """Of 100 s more, which are 12 MB; all spectra of a recording at once took 120 and 386 MB more."""
    command = [sys.executable, "-c", PEAK, distance]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(found) < 40


def test_the_end_of_sound_of_a_long_recording():
    wav = np.random.default_rng(0).random(60 * 16000, np.float32)
    assert taken(lambda: preprocess._end_of_sound(wav))[1] < 2 * wav.nbytes


def test_warping_takes_a_byte_per_pair_of_frames():
    cost = lambda row, column: 1.0 * np.abs(row - column)  # noqa: E731
    assert taken(lambda: alignment.warping_path(cost, 600, 500))[1] < 2 * 600 * 500


def test_recordings_that_are_too_long_to_warp_have_the_other_distance(monkeypatch):
    wav = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    monkeypatch.setattr(alignment, "MOST_CELLS", 1000)
    pair = SimpleNamespace(wav=wav), SimpleNamespace(wav=0.5 * wav)
    found = MelCepstralDistortion().measure(Comparison("a", *pair))
    assert math.isnan(found["mcd_dtw"]) and math.isnan(found["mcd_dtw_c0"])
    assert found["mcd"] < 0.1 and "59 and 59 frames are too many" in found["notes"][0]
