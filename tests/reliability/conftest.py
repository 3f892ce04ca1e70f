"""Prints at the end of a run how many commands were killed, by command and kind of kill."""

from ended_commands import KILLED


def pytest_terminal_summary(terminalreporter):
    for (name, kind), count in sorted(KILLED.items()):
        terminalreporter.write_line(f"{count} kills of {name!r} by {kind}")
