"""The number of updates that fill a given time, from the log of a short training: Hydra overrides on stdout.

    python examples/training_plan.py probe/train.log --minutes 8 --elapsed 31

The short training (common.log_format=json) takes half of its updates on the mel distance alone and the rest
with discriminators. `--elapsed` is how many seconds it took in all. Its own time and the start of the
training that follows count as part of the minutes.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

MEL_SHARE = 0.2  # of the time, for the mel distance alone
RESERVE = (
    0.94  # of the time for updates; the rest goes to validations, checkpoints and slower moments
)
LINE = re.compile(r"\[train_inner\]\S* - (\{.*\})\s*$|\| train_inner \| (\{.*\})\s*$")


def read_speeds(log: str) -> list[tuple[int, float]]:
    """(number of updates so far, updates per second of the interval) of each line of a training's log."""
    found = []
    for line in log.splitlines():
        if match := LINE.search(line):
            values = json.loads(match[1] or match[2])
            found.append((int(values["num_updates"]), float(values["ups"])))
    return found


def plan(speeds: list[tuple[int, float]], minutes: float, elapsed: float) -> dict[str, float]:
    """The overrides for a training of so many minutes.

    Args:
        speeds: those of `read_speeds`, at equal intervals; the first of each half warms up.
        minutes: time for the short training and for the one to plan.
        elapsed: seconds that the short training took.

    Raises:
        ValueError: There are fewer than two intervals in a half, or no time is left.
    """
    last = max((updates for updates, _ in speeds), default=0)
    halves = [[speed for at, speed in speeds if (at > last / 2) == late] for late in (False, True)]
    if min(map(len, halves)) < 2:
        raise ValueError(
            f"the log has {len(speeds)} intervals of updates, expected at least four; did it end early?"
        )
    # A speed is rounded to two decimals, so one of a very slow update can be 0.
    mel, adversarial = (max(statistics.median(half[1:]), 0.005) for half in halves)
    updating = last / 2 * (1 / mel + 1 / adversarial)
    start = max(elapsed - updating, 0)
    left = (60 * minutes - elapsed - start) * RESERVE
    if left <= 0:
        raise ValueError(
            f"starting takes {start:.0f} s and the short training {elapsed:.0f} s in all: nothing of "
            f"{minutes:g} minutes is left to train"
        )
    first = max(round(MEL_SHARE * left * mel), 1)
    updates = first + max(round((1 - MEL_SHARE) * left * adversarial), 1)
    each = max(updates // 4, 1)
    print(
        f"{mel:.2f} and {adversarial:.2f} updates per second without and with discriminators, {start:.0f} s "
        f"to start: {updates} updates, the first {first} on the mel distance alone",
        file=sys.stderr,
    )
    return {
        "optimization.max_update": updates,
        "criterion.discriminator_start": first,
        "optimization.stop_time_hours": round(1.25 * minutes / 60, 4),
        "dataset.validate_interval_updates": each,
        "checkpoint.save_interval_updates": each,
    }


def main() -> int:
    """Prints the overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path, help="log of the short training")
    parser.add_argument("--minutes", type=float, required=True, help="for both trainings")
    parser.add_argument(
        "--elapsed", type=float, required=True, help="seconds that the short training took"
    )
    args = parser.parse_args()
    try:
        log = args.log.read_text(encoding="utf-8", errors="replace")
        overrides = plan(read_speeds(log), args.minutes, args.elapsed)
    except (ValueError, OSError) as error:
        print(f"training_plan.py: error: {args.log}: {error}", file=sys.stderr)
        return 2
    print(" ".join(f"{name}={value}" for name, value in overrides.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
