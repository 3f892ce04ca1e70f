"""Imports point down only, as CONTRIBUTING.md draws them."""

import ast
from pathlib import Path

import fairseq_resynth

PACKAGE = Path(fairseq_resynth.__file__).parent
# A file may import from its own layer and from lower ones; what is not listed lies between data and cli.
LAYERS = {"modules": 0, "data": 1, "models": 2, "criterions": 2, "cli": 4}
# Imported by any layer: they import nothing of the package.
FREE = {"quiet_fairseq", "distributed", ""}


def layer(parts: list[str]) -> int:
    return LAYERS.get(parts[0], 3)


def imports(path: Path) -> list[list[str]]:
    """Returns the package's parts that a file imports, anywhere in it, as lists below the package."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    inside = [name.split(".")[1:] for name in names if name.startswith("fairseq_resynth.")]
    return [parts for parts in inside if parts]


def test_imports_point_down():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = list(path.relative_to(PACKAGE).with_suffix("").parts)
        for other in imports(path):
            if other[0] not in FREE and own[0] not in FREE and layer(other) > layer(own):
                wrong.append(f"{'/'.join(own)} imports {'.'.join(other)}")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_are_short():
    """Files up to 250 lines; functions up to 40, counted without their docstring."""
    long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if len(text.splitlines()) > 250:
            long.append(f"{path.name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
                if lines > 40:
                    long.append(f"{path.name}:{node.lineno} {node.name}: {lines} lines")
    assert not long, "\n".join(long)


def test_public_functions_have_docstrings():
    bare = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        holders = [tree, *[node for node in tree.body if isinstance(node, ast.ClassDef)]]
        for node in (child for holder in holders for child in holder.body):
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            )
            if named and ast.get_docstring(node) is None:
                bare.append(f"{path.name}:{node.lineno} {node.name}")
    assert not bare, "\n".join(bare)


def test_nothing_unsafe():
    """No eval, no unpickling, no bare except, no print outside the commands."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = (
                node.func.id
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                else ""
            )
            if name in ("eval", "exec") or (name == "print" and path.parent.name != "cli"):
                wrong.append(f"{path.name}:{node.lineno} {name}")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{path.name}:{node.lineno} bare except")
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                if not (isinstance(node.value, ast.Constant) and node.value.value is True):
                    wrong.append(f"{path.name}:{node.value.lineno} weights_only is not True")
    assert not wrong, "\n".join(wrong)
