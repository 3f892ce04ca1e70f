"""Live conversion over a WebSocket (RFC 6455): the microphone of the page comes in, another voice goes out.

A client sends JSON text, `{"sample_rate": 48000, "voice": NAME, "speaker": NAME, "pitch": "shift=+3st", …}`
as for a conversion, and then float32 little-endian samples at that rate in binary messages; it gets its
result in the same form. Another JSON text changes voice, pitch or rate from there on; `{"end": true}` ends.
The server answers each with JSON: `{"delay": seconds}`, `{"ended": true}` or `{"error": sentence}`.

Frames are read here, in some thirty lines, because the page needs nothing but the base install. A library
such as wsproto would not shorten what matters, the limits on messages, frames and time; the tests use it as
a client.
"""

import base64
import contextlib
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.live import LiveConverter
from fairseq_resynth.play.connections import Connection
from fairseq_resynth.play.requests import json_object
from fairseq_resynth.play.sessions import PlaySession

MAX_MESSAGE = 1 << 20  # bytes; 5 s at 48 kHz
MIN_MESSAGE = 64  # bytes; smaller ones are no use of the page
MAX_FRAMES = 100  # fragments, pings, pongs and small messages between two others
# Seconds by which the audio may come faster than time; more waits in the client, so that nobody keeps the
# model from others.
MAX_AHEAD = 2.0
# Seconds by which the audio may come late, and then faster than time until it is not.
MAX_CREDIT = 30.0
PIECE_SECONDS = 0.5  # of audio that a conversion takes before others have their turn
# Seconds of audio that a message, and any other frame, counts as at least.
MESSAGE_SECONDS, FRAME_SECONDS, TEXT_SECONDS = 0.001, 0.05, 0.1
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the handshake, RFC 6455, section 1.3
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, POLICY, TOO_BIG, TRY_LATER = 1000, 1002, 1008, 1009, 1013


class SocketError(Exception):
    """What ends a WebSocket: its code of closing and one sentence."""

    def __init__(self, code: int, sentence: str):
        super().__init__(sentence)
        self.code = code


def accept_key(headers: Mapping[str, str]) -> str:
    """The answer to the key of a handshake; raises ValueError if the request is not one of version 13."""
    key = headers.get("Sec-WebSocket-Key", "")
    upgrade = headers.get("Upgrade", "").lower()
    if upgrade != "websocket" or not key or headers.get("Sec-WebSocket-Version") != "13":
        raise ValueError("expected the handshake of a WebSocket of version 13")
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


class WebSocket:
    """The server's end of a WebSocket after its handshake, as the page needs it, without extensions."""

    def __init__(self, reader: BinaryIO, connection: Connection):
        self._reader, self._connection = reader, connection
        self._ahead, self._paced = 0.0, time.monotonic()

    def messages(self) -> Iterator[str | bytes]:
        """Yields texts and bytes until the client closes; answers pings. Raises SocketError for anything
        that breaks the protocol or is larger than 1 MB, and ConnectionError if the client is gone."""
        kind, parts, room, frames = CONTINUATION, [b""], MAX_MESSAGE, 0
        self._connection.expect()
        while True:
            last, code, data = self._frame(room)
            if code == CLOSE:
                self.send(data[:2], CLOSE)
                return
            if code == PING:
                self.send(data, PONG)
            if not last or code in (PING, PONG):
                frames += 1
                self.pace(FRAME_SECONDS)
            if frames > MAX_FRAMES:  # whose pace alone would keep a conversion from others
                raise SocketError(POLICY, f"over {MAX_FRAMES} frames came without a larger message")
            if code in (PING, PONG):
                continue
            if (code == CONTINUATION) != (kind != CONTINUATION) or code > BINARY:
                raise SocketError(PROTOCOL_ERROR, f"found a frame of kind {code} out of place")
            kind, room = kind or code, room - len(data)
            parts.append(data)
            if last:
                message = b"".join(parts)
                try:
                    yield message.decode() if kind == TEXT else message
                except UnicodeDecodeError as error:
                    raise SocketError(POLICY, "the text is not UTF-8") from error
                frames = frames + 1 if len(message) < MIN_MESSAGE else 0
                kind, parts, room = CONTINUATION, [b""], MAX_MESSAGE
                if message:
                    self._connection.expect()

    def pace(self, seconds: float) -> None:
        """Counts `seconds` of audio, and waits until they are not too far ahead of time."""
        now = time.monotonic()
        self._ahead = max(self._ahead - (now - self._paced), -MAX_CREDIT) + seconds
        self._paced = now
        time.sleep(max(self._ahead - MAX_AHEAD, 0))

    def send(self, data: bytes, kind: int = BINARY) -> None:
        """Sends one message."""
        size = len(data)
        head = bytes([0x80 | kind, min(size, 126) if size < 1 << 16 else 127])
        head += struct.pack(">H", size) if 126 <= size < 1 << 16 else b""
        head += struct.pack(">Q", size) if size >= 1 << 16 else b""
        if kind != PONG:  # pings alone keep nothing open
            self._connection.expect()
        self._connection.write(head + data)

    def say(self, **values: Any) -> None:
        """Sends JSON."""
        self.send(json.dumps(values).encode(), TEXT)

    def close(self, code: int) -> None:
        """Sends the frame that closes."""
        self.send(struct.pack(">H", code), CLOSE)

    def refuse(self, code: int, sentence: str) -> None:
        """Says why, and closes; a client that reads nothing does not hear it."""
        self._connection.expect(1.0)
        with contextlib.suppress(OSError):
            self.say(error=sentence)
            self.close(code)

    def _frame(self, limit: int) -> tuple[bool, int, bytes]:
        """(whether it is the last of its message, its kind, its data)."""
        first, second = self._read(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        if first & 0x70 or not second & 0x80:
            raise SocketError(PROTOCOL_ERROR, "found a frame that is not a client's of RFC 6455")
        kind = first & 0x0F
        if size > limit or (kind >= CLOSE and size > 125):
            raise SocketError(
                TOO_BIG, f"a message has over {size} bytes, expected up to {MAX_MESSAGE}"
            )
        mask, data = self._read(4), self._read(size)
        repeated = np.frombuffer(mask * (size // 4 + 1), np.uint8)[:size]
        return bool(first & 0x80), kind, (np.frombuffer(data, np.uint8) ^ repeated).tobytes()

    def _read(self, count: int) -> bytes:
        data = self._reader.read(count)
        if len(data) < count:
            raise ConnectionError("the client is gone")
        return data


def converse(socket: WebSocket, session: PlaySession, slots: threading.BoundedSemaphore) -> None:
    """Converts until the client ends, leaves, or sends what cannot be used; that is answered with one
    sentence. What was converted before is sent in any case. A conversion takes one of the slots."""
    conversation = _Conversation(socket, session, slots)
    try:
        conversation.run()
    except SocketError as error:
        socket.refuse(error.code, str(error))
    except TimeoutError:
        socket.refuse(POLICY, "no audio came, or nothing was read, for too long")
    finally:
        conversation.release()


class _Conversation:
    def __init__(self, socket: WebSocket, session: PlaySession, slots: threading.BoundedSemaphore):
        self._socket, self._session, self._slots = socket, session, slots
        self._converter: LiveConverter | None = None
        self._has_slot = False
        self._rate = SAMPLE_RATE

    def release(self) -> None:
        if self._has_slot:
            self._slots.release()

    def run(self) -> None:
        for message in self._socket.messages():
            try:
                if isinstance(message, bytes):
                    self._convert(message)
                elif not self._change(message):
                    self._socket.close(NORMAL)
                    return
            except (ValueError, FileNotFoundError) as error:
                self._flush()
                raise SocketError(POLICY, str(error)) from error

    def _convert(self, data: bytes) -> None:
        if self._converter is None:
            raise ValueError("samples came before the JSON that names the voice")
        if len(data) % 4:
            raise ValueError(f"found {len(data)} bytes, expected float32 samples of 4 bytes")
        samples = np.frombuffer(data, "<f4")
        if not np.isfinite(samples).all():
            raise ValueError("the samples have NaN or infinity in them, expected finite numbers")
        size = round(PIECE_SECONDS * self._rate)
        for start in range(0, len(samples) or 1, size):
            piece = samples[start : start + size]
            self._socket.pace(max(len(piece) / self._rate, MESSAGE_SECONDS))
            self._send(self._session.push_live(self._converter, piece, self._rate))

    def _change(self, text: str) -> bool:
        """Begins a conversion as JSON says; False if it ends the last one."""
        self._socket.pace(TEXT_SECONDS)
        values = json_object(text, "the text")
        if values.get("end"):
            self._flush()
            self._socket.say(ended=True)
            return False
        rate = values.pop("sample_rate", SAMPLE_RATE)
        if type(rate) is not int or abs(rate) > 1e9:
            raise ValueError(f"sample_rate is {str(rate)[:80]!r}, expected a whole number of Hz")
        if not self._has_slot and not self._slots.acquire(blocking=False):
            raise SocketError(TRY_LATER, "other live conversions are running: try again later")
        self._has_slot = True
        converter = self._session.start_live(values, rate)
        self._flush()
        self._converter, self._rate = converter, rate
        self._socket.say(delay=converter.delay)
        return True

    def _flush(self) -> None:
        if self._converter is not None:
            self._send(self._session.push_live(self._converter, None, self._rate))

    def _send(self, samples: np.ndarray) -> None:
        if len(samples):
            self._socket.send(samples.astype("<f4").tobytes())
