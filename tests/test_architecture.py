"""The rooms of the package and their arrows, as CONTRIBUTING.md draws them."""

import ast
from pathlib import Path

import fairseq_resynth

PACKAGE = Path(fairseq_resynth.__file__).parent
# A room imports itself and what stands in the lines above its own. The rooms of a line do not import
# each other.
STOREYS = [
    ["constants", "compat"],
    ["modules", "data"],
    ["measures", "encoders", "models", "criterions"],
    ["preparation", "tasks", "inference"],
    ["conversion"],
    ["resynthesizer"],
    ["codec"],
    ["evaluation", "interop"],
    ["play"],
    ["cli"],
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
# Where fairseq may be imported, as prefixes of paths.
FAIRSEQ = (
    "compat.py",
    "data/datasets/",
    "encoders/fairseq_models.py",
    "models/",
    "criterions/",
    "tasks/",
)
# The package's __init__ offers `Resynthesizer` on first use and is no room.
ENTRANCE = "__init__.py"


def imports(text: str) -> list[str]:
    """Returns every module or name that a file imports, anywhere in it, with its dotted path."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def files(package: Path) -> dict[str, str]:
    """Returns the text of every file of the package by its path."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        found[path.relative_to(package).as_posix()] = path.read_text(encoding="utf-8")
    return found


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def edges(sources: dict[str, str]) -> list[tuple[str, str]]:
    """Returns (file, file that it imports) for every import within the package."""
    paths = {module_of(path): path for path in sources}
    found = []
    for path, text in sources.items():
        for name in imports(text):
            if not name.startswith("fairseq_resynth."):
                continue
            parts = name.split(".")[1:]
            longest = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            target = next((paths[module] for module in longest if module in paths), None)
            if target and target != path:
                found.append((path, target))
    return found


def wrong_arrows(sources: dict[str, str]) -> list[str]:
    wrong = []
    for path, target in edges(sources):
        if ENTRANCE in (path, target):
            continue
        room, other = room_of(path), room_of(target)
        if room not in STOREY:
            wrong.append(f"{path}: {room} is no room of the list in this test")
        elif room != other and STOREY.get(other, 99) >= STOREY[room]:
            wrong.append(f"{path} imports {target}")
    return sorted(set(wrong))


def circles(sources: dict[str, str]) -> list[str]:
    """Returns the files that import each other, at the end of however many steps."""
    graph: dict[str, set[str]] = {}
    for path, target in edges(sources):
        if path != ENTRANCE:
            graph.setdefault(path, set()).add(target)
    found = []
    for start in graph:
        reached, waiting = set(), list(graph[start])
        while waiting:
            path = waiting.pop()
            if path not in reached:
                reached.add(path)
                waiting += graph.get(path, ())
        if start in reached:
            found.append(start)
    return sorted(found)


def fairseq_outside(sources: dict[str, str]) -> list[str]:
    wrong = []
    for path, text in sources.items():
        uses = any(name.split(".")[0] in ("fairseq", "examples") for name in imports(text))
        if uses and not path.startswith(FAIRSEQ):
            wrong.append(path)
    return wrong


def test_arrows_run_one_way():
    assert not wrong_arrows(files(PACKAGE))


def test_no_circles():
    assert not circles(files(PACKAGE))


def test_fairseq_stays_in_its_rooms():
    assert not fairseq_outside(files(PACKAGE))


def test_each_kind_of_break_is_found():
    """The three tests above on a small house that is broken in each way."""
    house = {
        "data/units.py": "def read():\n    from fairseq_resynth.codec import speech_codec\n",
        "codec/speech_codec.py": "from fairseq_resynth.codec.streaming import Block\n",
        "codec/streaming.py": "def block():\n    import fairseq_resynth.codec.speech_codec\n",
        "inference/bundle.py": "def load():\n    from fairseq.models import BaseFairseqModel\n",
        "evaluation/runs.py": "from fairseq_resynth import interop\n",
        "interop/__init__.py": "",
        "attic/box.py": "from fairseq_resynth.data import units\n",
    }
    assert wrong_arrows(house) == [
        "attic/box.py: attic is no room of the list in this test",
        "data/units.py imports codec/speech_codec.py",
        "evaluation/runs.py imports interop/__init__.py",
    ]
    assert circles(house) == ["codec/speech_codec.py", "codec/streaming.py"]
    assert fairseq_outside(house) == ["inference/bundle.py"]


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


def test_no_two_test_files_have_one_name():
    """pytest imports test files by their bare names, and fails to collect the second of a name."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
