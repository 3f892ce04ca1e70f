"""Every verb that writes is killed and hindered at chosen and at random moments; then the same command gives
the bytes of a run that nothing interrupted, and leaves no other file."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ended_commands import KILLED, Commands, Ended
from writing_verbs import VERBS, Stages, snapshot

CHEAP = ("preprocess", "manifest", "quantize", "f0", "merge", "pack")
QUICK = tuple(VERBS)[: tuple(VERBS).index("pack") + 1]  # each needs what those before it make


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The first verbs, in order."""
    yield from _stages(tmp_path_factory, QUICK)


@pytest.fixture(scope="module")
def all_stages(tmp_path_factory):
    """All verbs, in order."""
    yield from _stages(tmp_path_factory, tuple(VERBS))


def _stages(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("interrupted")
    (root / "work").mkdir()
    with Commands(root / "work") as run:
        stages = Stages(root / "stages", run)
        stages.make(*names)
        yield stages


def check_completed(stages: Stages, name: str) -> None:
    """The command, run again, leaves what an uninterrupted run leaves, and keeps what was complete."""
    before = {path: path.stat().st_ino for path in stages.folder.rglob("*") if path.is_file()}
    left, expected = snapshot(stages.folder), stages.results[name]
    done = stages.run(*VERBS[name].words.split())
    assert done.status == 0, f"{name}: {done.err}{done.out}"
    now = snapshot(stages.folder)
    assert set(now) == set(expected), f"{name}: {sorted(set(now) ^ set(expected))}"
    assert [file for file in now if now[file] != expected[file]] == []
    kinds = VERBS[name].keeps
    kept = [file for file in left if file.endswith(kinds) and left[file] == expected.get(file)]
    again = [file for file in kept if (path := stages.folder / file).stat().st_ino != before[path]]
    assert len(again) <= 1, f"{name}: {again} of {len(kept)} complete files were written again"


def kill(stages: Stages, name: str, **how: float) -> Ended:
    """Runs a command that is killed, or ends before; kills are counted by command and kind."""
    ended = stages.run(*VERBS[name].words.split(), **how)
    assert ended.status in (-9, -25, 0), f"{name}: {ended.status} {ended.err}"
    KILLED[name, *how] += ended.status < 0
    return ended


def written_files(stages: Stages, name: str) -> list[bytes]:
    """The contents of the files that a command makes or changes."""
    before, after = snapshot(stages.root / name), stages.results[name]
    return [content for file, content in after.items() if before.get(file) != content]


@pytest.mark.parametrize("name", CHEAP)
def test_killed_before_a_change_of_the_file_system(name, stages):
    """Three times in one folder, each time later."""
    stages.restore(name)
    for share in (0.2, 0.5, 0.9):
        kill(stages, name, change=max(1, int(share * stages.changes[name])))
    check_completed(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_killed_before_every_change_of_the_file_system(name, all_stages):
    for change in range(1, all_stages.changes[name] + 1):
        all_stages.restore(name)
        kill(all_stages, name, change=change)
        check_completed(all_stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_killed_in_the_middle_of_a_write(name, all_stages):
    """Every file ends at a size, at a quarter, half or three quarters of one that the command writes; the
    kernel ends the process that writes beyond."""
    sizes = {len(content) for content in written_files(all_stages, name)}
    for size in sorted({1, 100, *(size * share // 4 for size in sizes for share in (1, 2, 3))}):
        all_stages.restore(name)
        kill(all_stages, name, size=size)
        check_completed(all_stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_killed_at_random_moments(name, all_stages):
    """`kill -9` at 50 moments; a run that ended before does not count, and says how long the next lasts."""
    moments, kills = np.random.default_rng(5), 0
    all_stages.restore(name)
    seconds = all_stages.run(*VERBS[name].words.split()).seconds
    for _ in range(200):
        all_stages.restore(name)
        ended = kill(all_stages, name, seconds=moments.uniform() * seconds)
        check_completed(all_stages, name)
        if ended.status == 0:
            seconds = min(seconds, ended.seconds)
        elif (kills := kills + 1) == 50:
            return
    pytest.fail(f"{name}: only {kills} of 200 runs were killed before their end")


OUTPUTS = {"preprocess": "audio", "pack": "pack", "convert": "converted", "export": "hub"}


def check_refused(ended, folder: str = "") -> None:
    """One sentence with a path and the reason, for each file that failed or at the end."""
    assert ended.status in (1, 2), ended
    text = ended.err + ended.out
    assert "Traceback" not in text and folder in text
    reasons = ("File too large", "No space left", "No such file", "removed", "Read-only")
    assert any(reason in text for reason in reasons), text


def full_disk(stages: Stages, name: str) -> None:
    size = max(map(len, written_files(stages, name)))
    stages.restore(name)
    check_refused(stages.run(*VERBS[name].words.split(), full=size * 2 // 3))
    check_completed(stages, name)


@pytest.mark.parametrize("name", ["preprocess", "f0"])
def test_a_full_disk(name, stages):
    """No file may grow beyond two thirds of the largest; then the same command completes."""
    full_disk(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_a_full_disk_in_every_verb(name, all_stages):
    full_disk(all_stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_disappears(name, all_stages):
    """The folder of the results is removed when two thirds of them are there."""
    all_stages.restore(name)
    change = all_stages.changes[name] * 2 // 3
    words = VERBS[name].words.split()
    ended = all_stages.run(*words, vanish=change, gone=OUTPUTS[name])
    check_refused(ended, OUTPUTS[name])
    check_completed(all_stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("options", ["ro", "size=8k"])
def test_a_mounted_folder_that_is_read_only_or_full(name, options, all_stages):
    all_stages.restore(name)
    folder = all_stages.folder / OUTPUTS[name]
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs the rights of root")
    try:
        ended = all_stages.run(*VERBS[name].words.split())
    finally:
        subprocess.run(["umount", folder], check=True)
    check_refused(ended, OUTPUTS[name])
    check_completed(all_stages, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["quantize", "f0", "quantize-f0", "speakers", "preprocess", "pack"]
)
@pytest.mark.parametrize("shards", [("1/2", "2/2"), ("1/1", "1/1")])
def test_two_tasks_at_once_where_there_are_no_locks(name, shards, all_stages):
    """Different shards, and the same one twice; the command again finds the bytes of one run."""
    with Commands(all_stages.folder) as other:
        for _ in range(5):
            all_stages.restore(name)
            words = VERBS[name].words.split()
            with ThreadPoolExecutor(2) as pool:
                tasks = [
                    pool.submit(run, *words, "--shard", shard, locks=False)
                    for run, shard in zip((all_stages.run, other), shards, strict=True)
                ]
            for task in tasks:
                assert task.result().status == 0, task.result()
            check_completed(all_stages, name)
