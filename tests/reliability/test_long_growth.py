"""Memory per file, and progress bars that show what was done."""

import json
import tracemalloc

import pytest
import tqdm.std

from fairseq_resynth.data.storage.resume import FOLDER, Record
from fairseq_resynth.data.storage.workers import progress, skip


def grown(make) -> int:
    """The bytes that the result of `make` holds."""
    tracemalloc.start()
    try:
        made = make()
        held = tracemalloc.get_traced_memory()[0]
        del made
        return held
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
    assert grown(lambda: Record(tmp_path)) < 1000 * files


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
