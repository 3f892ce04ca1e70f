"""Connections whose clients have to keep moving, and what happens when there are too many of them."""

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

MAX_CONNECTIONS = 128  # at a time, each with a thread
MAX_HEADER_BYTES = 1 << 17  # and what follows at once
WINDOW_SECONDS = 30.0  # in which a client has to finish, or to move LEAST_BYTES
LEAST_BYTES = 1 << 19
PATIENCE_SECONDS = 2.0  # after which a slow client has to leave, while others wait for its place
_PIECE = 1 << 16


class Connection(io.RawIOBase):
    """Reads and writes a socket; raises TimeoutError as soon as its client is too slow, as `expect` says."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._waits = False  # for its client
        self._room: float = MAX_HEADER_BYTES
        self.expect()

    def expect(self, seconds: float | None = None, least: float = math.inf) -> None:
        """The client has `seconds` from now, 30 by default, for what is read or written next, and again as
        many whenever it took or sent `least` bytes in them."""
        self._began, self._moved = time.monotonic(), 0
        self._seconds = WINDOW_SECONDS if seconds is None else seconds
        self._least = least

    def expect_body(self) -> None:
        """The headers are complete: as many bytes as the caller wants may follow, at half a megabyte per 30 s
        or faster."""
        self._room = math.inf
        self._least = LEAST_BYTES

    def is_slow(self) -> bool:
        """Whether the server waits for a client that is on the way to being too slow."""
        passed = time.monotonic() - self._began
        return (
            self._waits
            and passed > PATIENCE_SECONDS
            and self._moved < LEAST_BYTES * passed / WINDOW_SECONDS
        )

    def cut_off(self) -> None:
        """Ends the connection from another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended

    def readable(self) -> bool:
        """True, as for any raw stream that can be read."""
        return True

    def writable(self) -> bool:
        """True, as for any raw stream that can be written."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads what has come; 0 at the end."""
        count = self._move(self._socket.recv_into, buffer)
        self._room -= count
        if self._room < 0:
            raise http.client.LineTooLong("header")
        return count

    def write(self, data: Any) -> int:
        """Writes all of the data."""
        view, sent = memoryview(data), 0
        while sent < len(view):
            sent += self._move(self._socket.send, view[sent : sent + _PIECE])
        return sent

    def _move(self, operation: Callable[[Any], int], data: Any) -> int:
        while True:
            left = self._began + self._seconds - time.monotonic()
            if left <= 0:
                if self._moved < self._least:
                    raise TimeoutError("the client is too slow")
                self.expect(self._seconds, self._least)
                continue
            self._socket.settimeout(left)
            self._waits = True
            try:
                count = operation(data)
            except TimeoutError:
                continue
            finally:
                self._waits = False
            self._moved += count
            return count


class Connections:
    """The open connections of a server, at most MAX_CONNECTIONS, by their sockets."""

    def __init__(self) -> None:
        self._open: dict[socket.socket, Connection] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, opened: socket.socket) -> Connection:
        return self._open[opened]

    def add(self, opened: socket.socket) -> bool:
        """Keeps a new connection; if too many are open, a slow one is ended for it. False if none is slow."""
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS and not self._cut_off_slow():
                return False
            self._open[opened] = Connection(opened)
            return True

    def cut_off_slow(self) -> None:
        """Ends one connection whose client is slow, if there is one."""
        with self._lock:
            self._cut_off_slow()

    def remove(self, closed: socket.socket) -> None:
        """Forgets a connection."""
        with self._lock:
            self._open.pop(closed, None)

    def _cut_off_slow(self) -> bool:
        for opened, connection in self._open.items():  # in the order they came
            if connection.is_slow():
                connection.cut_off()
                del self._open[opened]
                return True
        return False
