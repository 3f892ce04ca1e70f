"""Writes constraints.txt again: the versions of this environment, and after each package what needs it.

    .venv/bin/python scripts/lock.py        in an environment with every extra, whose tests pass

`scripts/setup.sh` installs the lines of the chosen extras as they are, without resolving. Packages that only
PyTorch needs are not among them: pip installs those with PyTorch's wheel, whose build decides which they are.
"""

import importlib.metadata
from distutils.core import run_setup
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13")
BUILD = ("pip", "setuptools", "wheel", "numpy", "cython")  # installs, or builds source archives


def requirements(name: str, extras: set[str], python: str) -> list[Requirement]:
    """The requirements of an installed package on Linux, [] for one that is not installed."""
    environment = default_environment() | {"python_version": python, "python_full_version": python}
    try:
        found = map(Requirement, importlib.metadata.requires(name) or [])
    except importlib.metadata.PackageNotFoundError:
        return []
    names = extras or {""}
    return [
        each
        for each in found
        if not each.marker
        or any(each.marker.evaluate(environment | {"extra": extra}) for extra in names)
    ]


def closure(roots: list[Requirement], python: str, without: set[str] = frozenset()) -> set[str]:
    """The normalized names of all packages that the given requirements need, those of `without` left out."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        key = canonicalize_name(each.name), frozenset(each.extras)
        if key not in seen and key[0] not in without:
            seen.add(key)
            waiting += requirements(each.name, set(each.extras), python)
    return {name for name, _ in seen}


def needed_names(python: str) -> dict[str, set[str]]:
    """The names of the packages that each extra needs in addition to `base`, and those of `torch` alone."""
    project = run_setup(str(CONSTRAINTS.parent / "setup.py"), stop_after="init")
    environment = default_environment() | {"python_version": python}
    roots = {"base": project.install_requires + list(BUILD), **project.extras_require}
    parsed = {
        name: [
            each
            for each in map(Requirement, lines)
            if not each.marker or each.marker.evaluate(environment)
        ]
        for name, lines in roots.items()
    }
    names = {extra: closure(lines, python, {"torch"}) for extra, lines in parsed.items()}
    base = names["base"]
    return {
        extra: found - (base if extra != "base" else set()) for extra, found in names.items()
    } | {"torch": closure([Requirement("torch")], python) - base}


def main() -> None:
    """Marks every package with the extras that need it, and with a marker if not every Python does."""
    lines = CONSTRAINTS.read_text().splitlines()
    before = {canonicalize_name(line.split("==")[0]): line for line in lines if "==" in line}
    versions = {name: line.split("==")[1].split()[0].rstrip(";") for name, line in before.items()}
    names = {name: line.split("==")[0] for name, line in before.items()}
    # setuptools appends what it brings along to the path, so the first of a name is the environment's.
    for found in reversed(list(importlib.metadata.distributions())):
        package = canonicalize_name(found.metadata["Name"])
        names.setdefault(package, found.metadata["Name"])
        versions[package] = found.version.partition("+")[0]
    needed = {python: needed_names(python) for python in PYTHONS}
    rows = []
    for package, name in sorted(names.items(), key=lambda item: item[1].lower()):
        pythons = [p for p in PYTHONS if any(package in found for found in needed[p].values())]
        users = {extra for found in needed.values() for extra in found if package in found[extra]}
        if users:
            marker = f"; python_version < '3.{11 + len(pythons)}'" if len(pythons) < 3 else ""
            users = {"base"} if "base" in users else users - {"torch"} or users
            rows.append(f"{name}=={versions[package]}{marker}  # {' '.join(sorted(users))}")
        elif package in before:  # what needs it is not installed here
            rows.append(before[package])
    head = [line for line in lines if line.startswith("#")]
    CONSTRAINTS.write_text("\n".join(head + rows) + "\n")


if __name__ == "__main__":
    main()
