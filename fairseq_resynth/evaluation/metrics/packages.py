"""Optional packages: whether they are installed, and in which version."""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Sequence


def missing_packages(modules: Sequence[str], install: str) -> str:
    """Which modules are not installed and how to install them, or an empty string."""
    names = ", ".join(name for name in modules if not importable(name))
    hint = f"{names} not installed: pip install {install}, or 'fairseq_resynth[eval]' for all"
    return hint if names else ""


def importable(name: str) -> bool:
    """Tells whether a module is installed, without importing it."""
    return importlib.util.find_spec(name) is not None


@functools.cache
def package_version(module: str) -> str:
    """The version of the distribution that a module belongs to; cached, since the lookup is slow."""
    distributions = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
