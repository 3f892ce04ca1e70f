"""A server on this machine that answers with given bytes, right or wrong, and closes the connection."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

Answer = bytes | Callable[[], Iterable[bytes]]
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def http_answer(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An HTTP answer with the length of its body, or another one."""
    lines = [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + body


@contextlib.contextmanager
def answering(answers: Mapping[str, Answer]) -> Iterator[str]:
    """Yields the address of a server that answers a path as `answers` says at that time, else with 404."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, answers), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends `accept`
            thread.join()


def _serve(server: socket.socket, answers: Mapping[str, Answer]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):  # the client may leave early
            request = b""
            while b"\r\n\r\n" not in request and (block := connection.recv(1 << 16)):
                request += block
            path = request.split(b" ", 2)[1].decode("latin-1") if b" " in request else ""
            answer = answers.get(path, MISSING)
            for piece in (answer,) if isinstance(answer, bytes) else answer():
                connection.sendall(piece)
