"""Every verb that writes is killed and hindered at chosen and at random moments; then the same command gives
the bytes of a run that nothing interrupted, and leaves no other file."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ended_commands import KILLED, KILLS, Commands
from writing_verbs import VERBS, Stages, snapshot

CHEAP = ("preprocess", "manifest", "quantize", "f0", "merge", "pack")


@pytest.fixture(scope="module")
def stages(request, tmp_path_factory):
    """The verbs in order, up to the last that a test needs: each takes what those before it make."""
    root, names = tmp_path_factory.mktemp("interrupted"), tuple(VERBS)
    items = [item for item in request.session.items if item.path == request.path]
    last = max(names.index(item.callspec.params["name"]) for item in items)
    (root / "work").mkdir()
    with Commands(root / "work") as run:
        stages = Stages(root / "stages", run)
        stages.make(*names[: last + 1])
        yield stages


def check_completed(stages: Stages, name: str, under_way: int = 1, **how: float) -> bool:
    """The command, run again, leaves what an uninterrupted run leaves, and keeps what was complete, but for
    files that were under way, which may have been written and not yet recorded. Returns False if it was
    killed before its end, as `how` says; kills are counted by command and kind."""
    before = {path: path.stat().st_ino for path in stages.folder.rglob("*") if path.is_file()}
    left, expected = snapshot(stages.folder), stages.results[name]
    done = stages.run(*VERBS[name].words.split(), **how)
    if how and done.status in (-signal.SIGKILL, -signal.SIGXFSZ):
        KILLED[name, *how] += 1
        return False
    complete = VERBS[name].complete
    assert done.status == 0 or complete and complete in done.err, f"{name}: {done}"
    now = snapshot(stages.folder)
    assert set(now) == set(expected), f"{name}: {sorted(set(now) ^ set(expected))}"
    assert [file for file in now if now[file] != expected[file]] == []
    kinds = VERBS[name].keeps
    kept = [file for file in left if file.endswith(kinds) and left[file] == expected.get(file)]
    again = [file for file in kept if (path := stages.folder / file).stat().st_ino != before[path]]
    assert len(again) <= under_way, (
        f"{name}: {again} of {len(kept)} complete files were written again"
    )
    return True


def written_files(stages: Stages, name: str) -> list[bytes]:
    """The contents of the files that a command makes or changes."""
    before, after = snapshot(stages.root / name), stages.results[name]
    return [content for file, content in after.items() if before.get(file) != content]


@pytest.mark.parametrize("name", CHEAP)
def test_killed_before_a_change_of_the_file_system(name, stages):
    """Three times in one folder, each time later."""
    stages.restore(name)
    for share in (0.2, 0.5, 0.9):
        check_completed(stages, name, change=max(1, int(share * stages.changes[name])))
    check_completed(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_killed_before_every_change_of_the_file_system(name, stages):
    for change in range(1, stages.changes[name] + 1):
        stages.restore(name)
        check_completed(stages, name, change=change)
        check_completed(stages, name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "kmeans")) for name in VERBS]
)
def test_killed_in_the_middle_of_a_write(name, stages):
    """Every file ends at a size, at a quarter, half or three quarters of one that the command writes; the
    kernel ends the process that writes beyond. In one folder, each time later."""
    sizes = {len(content) for content in written_files(stages, name)}
    stages.restore(name)
    for size in sorted({1, 100, *(size * share // 4 for size in sizes for share in (1, 2, 3))}):
        if check_completed(stages, name, size=size):
            stages.restore(name)
    check_completed(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_killed_at_random_moments(name, stages):
    """`kill -9` at `KILLS` moments: again and again until a run has ended, then from the beginning."""
    moments = np.random.default_rng(5)
    stages.restore(name)
    seconds = stages.run(*VERBS[name].words.split()).seconds
    stages.restore(name)
    for _ in range(10 * KILLS):
        if check_completed(stages, name, seconds=moments.uniform() * seconds):
            stages.restore(name)
        if KILLED[name, "seconds"] == KILLS:
            check_completed(stages, name)
            return
    raise AssertionError(f"{name}: only {KILLED[name, 'seconds']} of {10 * KILLS} runs were killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VERBS if "--workers 1" in VERBS[name].words])
def test_killed_with_worker_processes(name, stages):
    """Ten times, later and later; its two worker processes may still write when the command begins again."""
    words = VERBS[name].words.replace("--workers 1", "--workers 2").split()
    stages.restore(name)
    changes = stages.run(*words).changes
    for change in np.unique(np.linspace(1, changes, 10).astype(int)):
        stages.restore(name)
        assert stages.run(*words, change=int(change)).status == -signal.SIGKILL
        KILLED[name, "change, with two workers"] += 1
        check_completed(stages, name, under_way=8)  # four for each worker


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
def test_a_full_disk_in_every_verb(name, stages):
    full_disk(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_disappears(name, stages):
    """The folder of the results is removed when two thirds of them are there."""
    stages.restore(name)
    change = stages.changes[name] * 2 // 3
    words = VERBS[name].words.split()
    ended = stages.run(*words, vanish=change, gone=OUTPUTS[name])
    check_refused(ended, OUTPUTS[name])
    check_completed(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("options", ["ro", "size=8k"])
def test_a_mounted_folder_that_is_read_only_or_full(name, options, stages):
    stages.restore(name)
    folder = stages.folder / OUTPUTS[name]
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs the rights of root")
    try:
        ended = stages.run(*VERBS[name].words.split())
    finally:
        subprocess.run(["umount", folder], check=True)
    check_refused(ended, OUTPUTS[name])
    check_completed(stages, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["quantize", "f0", "quantize-f0", "speakers", "preprocess", "pack"]
)
@pytest.mark.parametrize("shards", [("1/2", "2/2"), ("1/1", "1/1")])
def test_two_tasks_at_once_where_there_are_no_locks(name, shards, stages):
    """Different shards, and the same one twice; the command again finds the bytes of one run."""
    with Commands(stages.folder) as other:
        for _ in range(5):
            stages.restore(name)
            words = VERBS[name].words.split()
            with ThreadPoolExecutor(2) as pool:
                tasks = [
                    pool.submit(run, *words, "--shard", shard, locks=False)
                    for run, shard in zip((stages.run, other), shards, strict=True)
                ]
            for task in tasks:
                assert task.result().status == 0, task.result()
            check_completed(stages, name)
