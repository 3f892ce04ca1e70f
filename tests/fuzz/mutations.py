"""Mutations of valid files: of their bytes, and of what the bytes mean (JSON, lines, arrays, archives)."""

import copy
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Mutation = Callable[[bytes, Random], bytes]

DEEP = "[" * 20_000 + "]" * 20_000
WORDS = (
    "", "0", "-1", "1e999", "nan", "inf", "1000000000", "9" * 18, "9" * 30, "9" * 5000, "½", "١٢", "1_0",
    "\0", "../../evil", "/tmp/evil", "a.zip:0:99999999999", "\u2028", "\u202e", "é", "x" * 100_000,
    "|", "\t", "\\", "'", '"', "{", "{'a': " + "(" * 300, "[Hu", "<Un1>", "H-0\t1\t2", "</s>", ".", "..",
)  # fmt: skip
# Payloads that run code where pickle loads them; the harness fails if an audit event tells so.
PICKLES = (
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x02cbuiltins\neval\nX\x04\x00\x00\x001/0 \x85R.",
    b"\x80\x02csubprocess\nPopen\n]X\x04\x00\x00\x00truea\x85R.",
    b"\x80\x02cbuiltins\nopen\nX\x0a\x00\x00\x00../escapedX\x01\x00\x00\x00w\x86R.",
    b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00x\x85R.",
    b"\x80\x02cnumpy.testing._private.utils\nrunstring\nX\x01\x00\x00\x001}\x86R.",
    b"\x80\x02(" + b"l" * 9 + b".",
    b"\x80\x02" + b"(" * 10_000 + b"t" * 10_000 + b".",
    b"\x80\x04\x8a\xff" + b"\xff" * 255 + b".",
    b"\x80\x02X\xff\xff\xff\x7fx.",
    b"\x80\x02]q\x00h\x00a.",  # a list that contains itself
)


def change_bytes(data: bytes, rng: Random) -> bytes:
    """Some bytes are changed, removed, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(changed) or 1)
        if rng.random() < 0.5:  # headers decide more than content
            place = min(place, rng.randrange(64))
        end = place + rng.randint(1, 8)
        kind = rng.randrange(5)
        if kind == 0:
            changed[place:end] = rng.randbytes(end - place)
        elif kind == 1:
            del changed[place:end]
        elif kind == 2:
            changed[place:place] = changed[place:end] * rng.randint(1, 4)
        elif kind == 3:
            del changed[place:]
        else:
            changed[place:end] = bytes([rng.choice([0, 255, 10, 9, 32, 127])]) * (end - place)
    return bytes(changed)


@lru_cache
def json_values() -> list[Any]:
    """Values of JSON of every kind, drawn by hypothesis, and those that readers trip over."""
    found: list[Any] = [None, True, -1, 0, 0.5, 1e308, float("nan"), float("inf"), 10**9, 10**400]
    found += [*WORDS, [], {}, [[]], {"a": None}, [None], [-1], ["x"], [10**9], DEEP]
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    trees = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )

    @settings(max_examples=100, database=None, derandomize=True, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(trees)
    def draw(value):
        found.append(value)

    draw()
    return found


def _place(value: Any, rng: Random) -> tuple[Any, Any]:
    """A list or an object in a value, and a key or index of it; all depths are about equally likely."""
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    inner = value[key]
    return (
        _place(inner, rng)
        if isinstance(inner, dict | list) and inner and rng.random() < 0.7
        else (value, key)
    )


def change_json(data: bytes, rng: Random) -> bytes:
    """A value has another type or length, a key is missing, misspelled or there twice."""
    value = {"": json.loads(data)}
    for _ in range(rng.randint(1, 2)):
        holder, key = _place(value, rng)
        kind = rng.randrange(6)
        if kind == 0 and holder is not value:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict) and holder is not value:
            holder[f"{key}_"] = holder.pop(key)
        elif kind == 2 and isinstance(holder[key], list):
            holder[key] *= rng.choice([0, 2, 1000])
        else:
            # Copied, so that a second change leaves the list of values as it was.
            holder[key] = copy.deepcopy(rng.choice(json_values()))
    text = json.dumps(value[""], ensure_ascii=rng.random() < 0.5)
    text = text.replace(json.dumps(DEEP), DEEP)
    if text.startswith("{") and rng.random() < 0.1:
        text = '{"a": 1, "a": 2, ' + text[1:]
    return _change_encoding(text.encode("utf-8", "surrogatepass"), rng)


def change_json_lines(data: bytes, rng: Random) -> bytes:
    """`change_json` on one line."""
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = change_json(lines[place], rng)
    return b"\n".join(lines) + b"\n"


def change_lines(data: bytes, rng: Random) -> bytes:
    """Fields have other text; lines are doubled, missing, in another order or joined."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        place, kind = rng.randrange(len(lines)), rng.randrange(6)
        if kind == 0:
            lines.insert(place, rng.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            rng.shuffle(lines)
        else:
            mark = rng.choice([b" ", b"\t", b"|", b",", b'"', b"=", b"/"])
            fields = lines[place].split(mark)
            fields[rng.randrange(len(fields))] = rng.choice(WORDS).encode()
            lines[place] = mark.join(fields)
    return _change_encoding(b"\n".join(lines), rng)


def _change_encoding(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(20)
    if kind == 0:
        return b"\xef\xbb\xbf" + data
    if kind == 1:
        return data.replace(b"\n", b"\r\n")
    if kind == 2:
        return data.decode("utf-8", "replace").encode("utf-16")
    return data


def change_safetensors(data: bytes, rng: Random) -> bytes:
    """The JSON of the header is changed, or its length; or there are fewer or more bytes of tensors."""
    size = int.from_bytes(data[:8], "little")
    header, body = change_json(data[8 : 8 + size].rstrip(), rng), data[8 + size :]
    kind = rng.randrange(8)
    size = rng.choice([0, 1, 1 << 31, 1 << 40, (1 << 64) - 1]) if kind == 0 else len(header)
    body = body[: rng.randrange(len(body) or 1)] if kind == 1 else body * (2 if kind == 2 else 1)
    return struct.pack("<Q", size) + header + body


DTYPES = (
    "'|O'",
    "'<f8'",
    "'<i8'",
    "'|S5'",
    "'<U9'",
    "'<c16'",
    "'>i2'",
    "'|V4'",
    "[('a', '<i8')]",
    "None",
)
SHAPES = (
    "()",
    "(0,)",
    "(1000000000000,)",
    "(-1,)",
    "(2, 0)",
    "(1,) * 40",
    "(1, 1, 1)",
    "(True,)",
    "None",
)


def change_array(data: bytes, rng: Random) -> bytes:
    """The header of a .npy file tells another type, order or shape."""
    head, _, body = data.partition(b"\n")
    text = head[10:].decode("latin-1")
    for old, new in (
        (text[text.index("'descr': ") + 9 : text.index(", 'fortran")], rng.choice(DTYPES)),
        (text[text.index("(") : text.rindex(")") + 1], rng.choice(SHAPES)),
        ("False", rng.choice(["True", "1"])),
        ("{", "{" * rng.choice([0, 1, 1, 1, 2, 300])),
    ):
        if rng.random() < 0.5:
            text = text.replace(old, new)
    return data[:8] + struct.pack("<H", len(text) + 1) + text.encode("latin-1") + b"\n" + body


def change_zip(data: bytes, rng: Random) -> bytes:
    """A member of a ZIP archive has other bytes or another name, or is a pickle that runs code."""
    source = zipfile.ZipFile(io.BytesIO(data))
    members = [(entry.filename, source.read(entry)) for entry in source.infolist()]
    place = rng.randrange(len(members))
    pickles = [n for n, (name, _) in enumerate(members) if name.endswith(".pkl")]
    place = pickles[0] if pickles and rng.random() < 0.7 else place
    name, content = members[place]
    kind = rng.randrange(6)
    if kind == 0:
        members[place] = (
            rng.choice(["../evil", "/tmp/evil", "a\0b", "é" * 100, "x/../../evil"]),
            content,
        )
    elif kind == 1 and name.endswith(".pkl"):
        members[place] = (name, rng.choice(PICKLES))
    elif kind == 2 and name.endswith(".pkl"):
        # In front of the rest, whose value is then dropped.
        members[place] = (name, content[:2] + rng.choice(PICKLES)[:-1] + b"0" + content[2:])
    elif kind == 3:
        members[place] = (name, b"\0" * 3_000_000)  # which is compressed to little
    else:
        members[place] = (name, change_bytes(content, rng))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice([0, 0, 0, zipfile.ZIP_DEFLATED])) as target:
        for name, content in members:
            target.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def change_tar(data: bytes, rng: Random) -> bytes:
    """An archive gets a member that points outside of it, a link or a device, before or after the rest."""
    stream = io.BytesIO()
    with (
        tarfile.open(fileobj=stream, mode="w:gz") as target,
        tarfile.open(fileobj=io.BytesIO(data)) as source,
    ):
        members = [(entry, source.extractfile(entry)) for entry in source.getmembers()]
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(
                ["../evil", "/tmp/evil", "a/b", "b/config.json", "é", "x" * 300, members[0][0].name]
            )
            extra = tarfile.TarInfo(name)
            kinds = (
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.FIFOTYPE,
            )
            extra.type, extra.linkname = (
                rng.choice(kinds),
                rng.choice(["..", "/etc/passwd", "../../x", "a"]),
            )
            extra.mode = rng.choice([0o777, 0, 0o4755])
            members.insert(rng.randint(0, len(members)), (extra, io.BytesIO()))
        for entry, content in members:
            target.addfile(entry, content)
    return stream.getvalue()
