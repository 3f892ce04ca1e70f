"""The web page under attack and load: what an honest client waits, what the server takes, what it gives back.

usage: python benchmarks/web_page.py --bundle BUNDLE --content-checkpoint WEIGHTS

Starts `resynth play`, and attacks it in one way after the other. Meanwhile an honest client loads the page
and uploads a recording, again and again. Prints one JSON line per attack: the answers that the attackers got,
the seconds that the honest client waited (median and longest) and what it was refused, the peak of the memory
of the server and its decoder, and what is left of threads and files when the attackers have gone.
"""

import argparse
import base64
import collections
import concurrent.futures
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "examples/asterisk/speech/english/dir-welcome.flac"
HOST = b"Host: localhost\r\n"
Address = tuple[str, int]


@dataclass(frozen=True)
class Flood:
    """What each of many connections sends: at first, then again and again; `seconds` between two of them.
    One that does not read has the smallest buffer for what it is sent."""

    opening: bytes
    again: bytes = b""
    seconds: float = 0.0
    reads: bool = True


def frame(data: bytes, kind: int, last: bool = True, size: int | None = None) -> bytes:
    """A WebSocket frame of a client, which may announce another size than it has."""
    head = struct.pack(">BBQ", last << 7 | kind, 0xFF, len(data) if size is None else size)
    return head + bytes(4) + data  # a mask of zeros


def post(path: str, *headers: str) -> bytes:
    """The head of a POST request."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + lines.encode() + b"\r\n"


HANDSHAKE = (
    b"GET /api/live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    + HOST
    + b"Sec-WebSocket-Key: "
    + base64.b64encode(bytes(16))
    + b"\r\n\r\n"
)


def floods(voice: str | None) -> dict[str, Flood]:
    """The attacks by name; some begin a live conversion to a voice of the model."""
    begin = json.dumps({"sample_rate": 16000, "voice": voice}).encode()
    return {
        "headers byte by byte": Flood(b"GET / HTTP/1.1\r\n" + HOST + b"X: ", b"x", 1.0),
        "nothing at all": Flood(b""),
        "bodies byte by byte": Flood(post("/api/source", "Content-Length: 300000"), b"x", 1.0),
        "bodies that stop": Flood(post("/api/source", "Content-Length: 300000") + bytes(200_000)),
        "10 GB claimed": Flood(post("/api/source", "Content-Length: 10000000000"), bytes(1 << 16)),
        "10 GB in chunks": Flood(
            post("/api/source", "Transfer-Encoding: chunked"),
            b"10000\r\n" + bytes(1 << 16) + b"\r\n",
        ),
        "endless headers": Flood(b"GET / HTTP/1.1\r\n" + HOST, b"X: " + b"x" * 60_000 + b"\r\n"),
        "pipelined requests": Flood(b"", (b"GET /api/model HTTP/1.1\r\n" + HOST + b"\r\n") * 100),
        "garbage": Flood(b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", bytes(range(256)) * 64),
        "requests whose answers are not read": Flood(
            b"GET /play.js HTTP/1.1\r\n" + HOST + b"\r\n", reads=False
        ),
        "sockets that are idle": Flood(HANDSHAKE),
        "sockets that ping": Flood(HANDSHAKE, frame(b"x" * 125, 9) * 100),
        "sockets that ping and do not read": Flood(
            HANDSHAKE, frame(b"x" * 125, 9) * 100, reads=False
        ),
        "sockets with endless fragments": Flood(
            HANDSHAKE + frame(b"x", 1, last=False), frame(b"", 0, last=False) * 100
        ),
        "sockets with giant frames": Flood(HANDSHAKE + frame(b"", 2, size=1 << 62), bytes(1 << 16)),
        "sockets with unmasked frames": Flood(HANDSHAKE, b"\x82\x01x" * 100),
        "sockets that stop in a frame": Flood(HANDSHAKE + frame(b"", 2, size=1000) + bytes(500)),
        "sockets that begin again and again": Flood(
            HANDSHAKE + frame(begin, 1), frame(begin, 1) * 100
        ),
        "sockets with a day of audio": Flood(HANDSHAKE + frame(begin, 1), frame(bytes(1 << 20), 2)),
        "sockets with single samples": Flood(
            HANDSHAKE + frame(begin, 1), frame(bytes(4), 2) * 100, 0.05
        ),
    }


class Attacker:
    """One connection of a flood, opened again whenever the server closes it."""

    def __init__(self, address: Address, flood: Flood, outcomes: collections.Counter):
        self._address, self._flood, self.outcomes = address, flood, outcomes
        self.socket: socket.socket | None = None

    def step(self) -> None:
        """Sends and reads what is possible without waiting."""
        try:
            if self.socket is None:
                self._open()
            if self._flood.reads:
                self._read()
            if not self._left and time.monotonic() >= self._next:
                self._left = memoryview(self._flood.again)
                self._next = time.monotonic() + self._flood.seconds
            if self._left:
                self._left = self._left[self.socket.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def close(self) -> None:
        """Closes, and counts how the server answered."""
        if self.socket is not None:
            status = self._answer.split(b"\r\n")[0].split(b" ")[1:2]
            self.outcomes[status[0].decode() if status else "no answer"] += 1
            self.socket.close()
            self.socket = None

    def _open(self) -> None:
        self.socket = socket.socket()
        if not self._flood.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.settimeout(10)
        self.socket.connect(self._address)
        self.socket.setblocking(False)
        self._left, self._next, self._answer = memoryview(self._flood.opening), 0.0, b""

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        self._answer = self._answer or data
        if not data:
            raise ConnectionError("closed")


def run_flood(
    address: Address, flood: Flood, connections: int, seconds: float
) -> collections.Counter:
    """Attacks; returns how many connections ended with each status, or without an answer."""
    outcomes: collections.Counter = collections.Counter()
    attackers = [Attacker(address, flood, outcomes) for _ in range(connections)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for attacker in attackers:
            attacker.step()
        time.sleep(0.01)
    for attacker in attackers:
        attacker.close()
    return outcomes


def request(address: Address, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, body) of one request; status 0 if the connection broke."""
    connection = http.client.HTTPConnection(*address, timeout=300)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def upload_at_once(address: Address, bodies: list[bytes]) -> collections.Counter:
    """Uploads all at the same time; returns how many got each status."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return collections.Counter(
            str(status)
            for status, _ in pool.map(lambda body: request(address, "/api/source", body), bodies)
        )


def silent_flac(hours: float) -> bytes:
    """Digital silence in a small file."""
    stream, second = io.BytesIO(), np.zeros(16000 * 60, np.int16)
    with soundfile.SoundFile(stream, "w", 16000, 1, "PCM_16", format="FLAC") as sound:
        for _ in range(round(hours * 60)):
            sound.write(second)
    return stream.getvalue()


def long_wav(hours: float) -> bytes:
    """A header that announces hours, and a second of samples."""
    size = round(hours * 3600 * 32000)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE")
    return head + form + struct.pack("<4sI", b"data", size) + bytes(32000)


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an MP4."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4_index(samples: int, sample_frames: int = 4096) -> bytes:
    """An MP4 of some kB whose index announces many packets of ALAC, each of one byte and so many frames."""
    cookie = struct.pack(">IBBBBBBHIII", sample_frames, 0, 16, 40, 10, 14, 2, 255, 0, 0, 44100)
    entry = struct.pack(">6xH8xHHHHI", 1, 2, 16, 0, 0, 44100 << 16)
    description = box(b"alac", entry, box(b"alac", bytes(4), cookie))
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), description),
        box(b"stts", struct.pack(">IIII", 0, 1, samples, 4096)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, samples, 1)),
        box(b"stsz", struct.pack(">III", 0, 1, samples)),
        box(b"stco", struct.pack(">III", 0, 1, 2000)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 44100, 44100, 0x55C4, 0)),
        box(b"hdlr", struct.pack(">8x4s12x2x", b"soun")),
        box(b"minf", box(b"smhd", bytes(8)), table),
    )
    header = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 44100, 44100), bytes(76), b"\0\0\0\2")
    track = box(b"trak", box(b"tkhd", struct.pack(">IIII", 3, 0, 0, 1), bytes(68)), media)
    return (
        box(b"ftyp", b"isom\0\0\0\1isom") + box(b"moov", header, track) + box(b"mdat", bytes(4000))
    )


def bombs(hours: float) -> dict[str, bytes]:
    """Small files that announce or become much."""
    return {
        "silent FLAC": silent_flac(hours),
        "WAV header": long_wav(hours),
        "MP4 index": mp4_index(60_000_000),
        "MP4 packet": mp4_index(10, 1 << 24),
    }


# ---- the server, and an honest client


class Honest(threading.Thread):
    """Loads the page and uploads a recording until it is told to stop; keeps what it waited."""

    def __init__(self, address: Address, recording: bytes):
        super().__init__(daemon=True)
        self._address, self._recording, self._stopping = address, recording, threading.Event()
        self.waited: dict[str, list[float]] = {"page": [], "upload": []}
        self.refused: collections.Counter = collections.Counter()

    def run(self) -> None:
        """Asks about twice per second."""
        while not self._stopping.wait(0.5):
            for name, path, body in (
                ("page", "/", None),
                ("upload", "/api/source", self._recording),
            ):
                began = time.monotonic()
                status, _ = request(self._address, path, body)
                self.waited[name].append(time.monotonic() - began)
                if status != 200:
                    self.refused[f"{name} {status}"] += 1

    def stop(self) -> dict[str, object]:
        """What it waited: [median, longest] in seconds."""
        self._stopping.set()
        self.join()
        times = {
            name: [round(float(np.median(found)), 2), round(max(found), 2)]
            for name, found in self.waited.items()
            if found
        }
        return {**times, "times": len(self.waited["page"]), "refused": dict(self.refused)}


def usage(pid: int) -> dict[str, int]:
    """Threads and files of a process, and the memory in MB of it and its children."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    memory, family = 0, [pid]
    for member in family:
        memory += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * 4096
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            family += map(int, children.read_text().split())
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return {"threads": int(status["Threads"]), "files": files, "MB": round(memory / 1e6)}


class Monitor(threading.Thread):
    """Keeps the largest of what a process uses."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid, self._stopping, self.peak = pid, threading.Event(), usage(pid)

    def run(self) -> None:
        """Looks ten times per second."""
        while not self._stopping.wait(0.1):
            try:
                now = usage(self._pid)
            except OSError:  # a thread or child has just ended
                continue
            self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}

    def stop(self) -> dict[str, int]:
        """The peaks."""
        self._stopping.set()
        self.join()
        return self.peak


def measure(
    name: str, address: Address, pid: int, attack: Callable[[], collections.Counter]
) -> None:
    """Runs one attack and prints its row."""
    before, monitor = usage(pid), Monitor(pid)
    honest = Honest(address, SPEECH.read_bytes())
    monitor.start()
    honest.start()
    began = time.monotonic()
    outcomes = attack()
    lasted = time.monotonic() - began
    waited = honest.stop()
    gone = time.monotonic()
    while (after := usage(pid))["threads"] > before["threads"] and time.monotonic() < gone + 60:
        time.sleep(0.1)
    row = {"attack": name, "seconds": round(lasted, 1), "answers": dict(outcomes)}
    row |= {"honest": waited, "peak": monitor.stop(), "before": before, "after": after}
    print(json.dumps(row | {"released_after": round(time.monotonic() - gone, 1)}), flush=True)


def main() -> None:
    """Prints one line per attack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", default=str(ROOT / "examples/asterisk/bundle"))
    parser.add_argument("--content-checkpoint", help="weights of the bundle's content encoder")
    parser.add_argument("--connections", type=int, default=100, help="of each attack (default 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack (default 60)")
    parser.add_argument("--uploads", type=int, default=50, help="at the same time (default 50)")
    parser.add_argument("--hours", type=float, default=10.0, help="of silence (default 10)")
    parser.add_argument("--only", help="part of the names of the attacks to run")
    args = parser.parse_args()
    command = [sys.executable, "-m", "fairseq_resynth.cli.main", "play", "--port", "0", "--json"]
    command += ["--bundle", args.bundle]
    if args.content_checkpoint:
        command += ["--content-checkpoint", args.content_checkpoint]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server ends as well
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(server.stdout.readline())["url"]
        address = ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
        recording = SPEECH.read_bytes()
        for _ in range(3):  # the first upload starts the decoder, and fills caches
            request(address, "/api/source", recording)
        voices = json.loads(request(address, "/api/model")[1])["speakers"]
        begin = json.dumps({"voice": voices[0] if voices else None}).encode()
        speech = Flood(HANDSHAKE + frame(begin, 1), frame(bytes(12800), 2), 0.2)
        run_flood(address, speech, connections=1, seconds=10)  # loads what live conversion needs
        attacks: dict[str, Callable[[], collections.Counter]] = {
            "none": lambda: time.sleep(min(args.seconds, 20)) or collections.Counter(),
            f"{args.uploads} uploads at once": lambda: upload_at_once(
                address, [recording] * args.uploads
            ),
        }
        for name, data in bombs(args.hours).items():
            attacks[f"{name}, {len(data)} bytes"] = lambda data=data: upload_at_once(
                address, [data] * 8
            )
        for name, flood in floods(voices[0] if voices else None).items():
            attacks[name] = lambda flood=flood: run_flood(
                address, flood, args.connections, args.seconds
            )
        for name, attack in attacks.items():
            if not args.only or args.only in name:
                measure(name, address, server.pid, attack)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
