"""The web server of the page, on Python's own `http.server`: one request at a time reaches the model."""

import contextlib
import email.errors
import io
import ipaddress
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fairseq_resynth.evaluation.report.page import asset
from fairseq_resynth.play.connections import LEAST_BYTES, Connections
from fairseq_resynth.play.live import WebSocket, accept_key, converse
from fairseq_resynth.play.sessions import PlaySession, RecordingExpired

ASSETS = Path(__file__).parent / "assets"
MAX_REQUEST_BYTES = 1 << 16  # of JSON
MAX_PENDING = 64  # requests that wait for the model
MAX_HELD = 8  # times the upload limit, in bytes of all requests together
MAX_LIVE = 2  # live conversions at a time; each takes a processor core
_READ_BYTES = 1 << 16
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FULL = (
    "HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Type: application/json\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
    + '\r\n{"error": "too many connections are open: try again later"}'
).encode()
# Which of several counts is a matter of dispute between a server and a proxy before it.
_ONCE = ("Host", "Origin", "Content-Length", "Transfer-Encoding")
_MALFORMED = (
    email.errors.MissingHeaderBodySeparatorDefect,
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.InvalidHeaderDefect,
)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?")


class RequestError(Exception):
    """A request that is refused, with a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class PlayServer(ThreadingHTTPServer):
    """Serves the page at (host, port), port 0 being any free one; uploads have up to `max_bytes`. The session
    may be set later: until the server is told to serve, connections wait.

    Raises OSError if the address is in use, or is not one of this machine.
    """

    daemon_threads = True
    # Connections that wait to be accepted; the rest would try again after a second.
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], max_bytes: int, session: PlaySession | None = None
    ):
        self.session, self.max_bytes, self.bound = session, max_bytes, address[0]
        self.connections = Connections()
        self.slots = threading.BoundedSemaphore(MAX_PENDING)
        self._held, self._held_lock = 0, threading.Lock()
        self.live_slots = threading.BoundedSemaphore(MAX_LIVE)
        self.files = {
            "/": ("text/html", (ASSETS / "play.html").read_bytes()),
            "/page.css": ("text/css", asset("page.css").encode()),
            "/play.css": ("text/css", (ASSETS / "play.css").read_bytes()),
        }
        for script in ("play.js", "pictures.js", "live.js", "live-worklet.js"):
            self.files[f"/{script}"] = ("text/javascript", (ASSETS / script).read_bytes())
        self.address_family = socket.AF_INET6 if ":" in self.bound else socket.AF_INET
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bound, self.bound)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.server_address[1]}/"

    def hold(self, count: int) -> bool:
        """Counts bytes that a request keeps in memory, or gives back; False if they are too many."""
        with self._held_lock:
            fits = self._held + count <= MAX_HELD * self.max_bytes
            self._held += count if fits else 0
        return fits

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a new connection, or refuses it."""
        if self.connections.add(request):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.send(_FULL)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs a broken connection at the level of debugging, without a traceback on the terminal."""
        logging.getLogger(__name__).debug("connection of %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    server_version, sys_version = "resynth", ""

    def setup(self) -> None:
        """Reads and writes within the limits of a `Connection`."""
        self.connection = self.request
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = 0  # bytes of the body that the server counts
        self.limited = self.server.connections[self.request]
        self.rfile, self.wfile = io.BufferedReader(self.limited, _READ_BYTES), self.limited

    def do_GET(self) -> None:
        """Answers with the page, its files or the description of the model."""
        self._serve(self._get)

    def do_POST(self) -> None:
        """Answers uploads and conversions."""
        self._serve(self._post)

    def _serve(self, action: Callable[[], None]) -> None:
        self.limited.expect_body()
        try:
            self._check_headers()
            reason = check_origin(self.headers, self.server.bound, self.command)
            if reason:
                raise RequestError(HTTPStatus.FORBIDDEN, reason)
            action()
        except RequestError as error:
            self._refuse(error)
        except RecordingExpired as error:
            self._answer({"error": str(error)}, HTTPStatus.GONE)
        except (ValueError, FileNotFoundError) as error:
            self._answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client is gone
        except Exception:  # a failed request must not end the server
            logging.getLogger(__name__).exception("%s %s", self.command, self.path[:100])
            sentence = "the server failed at this request; its terminal shows the reason"
            self._answer({"error": sentence}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _check_headers(self) -> None:
        for name in _ONCE:
            if len(self.headers.get_all(name, [])) > 1:
                raise RequestError(HTTPStatus.BAD_REQUEST, f"the request has {name} several times")
        # Python's parser drops a malformed header and all that follow, such as Origin.
        if any(isinstance(defect, _MALFORMED) for defect in self.headers.defects):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the request has a header that is not HTTP")

    def _get(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/model":
            self._answer(self.server.session.describe() | {"max_bytes": self.server.max_bytes})
        elif path == "/api/live":
            self._live()
        elif path in self.server.files:
            kind, content = self.server.files[path]
            self._send(content, f"{kind}; charset=utf-8", HTTPStatus.OK)
        else:
            raise RequestError(HTTPStatus.NOT_FOUND, f"nothing exists at {path[:100]}")

    def _live(self) -> None:
        key = accept_key(self.headers)
        self.close_connection = True
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {key}\r\n\r\n".encode()
        )
        converse(WebSocket(self.rfile, self.limited), self.server.session, self.server.live_slots)
        self._drain()

    def _drain(self, most: float = math.inf, seconds: float = 1.0) -> None:
        """Reads what the client still sends, for a moment: cut off while sending, it would see no answer."""
        end = time.monotonic() + seconds
        self.limited.expect(seconds)
        with contextlib.suppress(OSError):
            while most > 0 and time.monotonic() < end:
                if not (piece := self.rfile.read1(_READ_BYTES)):
                    break
                most -= len(piece)
                time.sleep(0.005)  # so that a flood does not keep the processor

    def _post(self) -> None:
        session, largest = self.server.session, self.server.max_bytes
        actions = {
            "/api/source": (session.add_source, largest),
            "/api/reference": (session.add_reference, largest),
            "/api/speech": (session.speak, MAX_REQUEST_BYTES),
        }
        if self.path not in actions:
            raise RequestError(HTTPStatus.NOT_FOUND, f"nothing can be sent to {self.path[:100]}")
        action, limit = actions[self.path]
        try:
            body = self._body(limit)
            if not self.server.slots.acquire(blocking=False):
                raise self._busy(f"{MAX_PENDING} requests are waiting")
            try:
                answer = action(body)
            finally:
                self.server.slots.release()
        finally:
            self.server.hold(-self.held)
        self._answer(answer)

    def _busy(self, reason: str) -> RequestError:
        return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}: try again later")

    def _body(self, limit: int) -> bytes:
        kind = self.headers.get_content_type()
        if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"found a form ({kind}), expected the bytes of the file "
                "(curl --data-binary @FILE -H 'Content-Type: audio/*')",
            )
        length = self._length()
        if length is None:
            raise RequestError(
                HTTPStatus.LENGTH_REQUIRED,
                "the request does not say how long it is (Content-Length)",
            )
        if length > limit:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {length / 1e6:.3g} MB, expected up to {limit / 1e6:.3g} MB",
            )
        pieces: list[bytes] = []
        while self.held < length:
            piece = self.rfile.read1(min(_READ_BYTES, length - self.held))
            if not piece:
                raise RequestError(
                    HTTPStatus.BAD_REQUEST,
                    f"the upload broke off: {self.held} of {length} bytes came",
                )
            if not self.server.hold(len(piece)):
                self.server.connections.cut_off_slow()
                raise self._busy("the uploads of others fill the memory")
            self.held += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers:  # which of the two counts is a matter of dispute
            return None
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def _refuse(self, error: RequestError) -> None:
        """Answers after the rest of the body: a browser that is cut off while sending shows no answer."""
        if error.status != HTTPStatus.BAD_REQUEST:  # then the body ended early
            self._drain(min(self._length() or 0, 4 * self.server.max_bytes), 2.0)
        self._answer({"error": str(error)}, error.status)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self._drain()

    def _answer(self, values: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(values).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus) -> None:
        self.limited.expect(least=LEAST_BYTES)
        self.send_response(status)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "2")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers broken HTTP, and methods other than GET and POST, in JSON as well."""
        status, sentence = HTTPStatus(code), message or HTTPStatus(code).phrase
        if status == HTTPStatus.NOT_IMPLEMENTED:
            sentence += ": expected a GET or POST request"
        self._answer({"error": sentence}, status)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs requests at the level of debugging, so that they do not fill the terminal."""
        logging.getLogger(__name__).debug(format, *args)


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    address = _ip_address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def check_origin(headers: Mapping[str, str], bound: str, method: str = "GET") -> str:
    """The reason why a server bound to `bound` refuses a request of another site's page, or "".

    Another site can make its own name resolve to this machine (DNS rebinding) and read what this server
    answers. The `Host` of such requests is that name, instead of an address or `localhost`. A site that does
    not do so can still send requests, whose `Origin` then differs from their `Host`. It may have a link that
    opens the page.
    """
    host = headers.get("Host", "").lower()
    found = _HOST.fullmatch(host)
    name = found[1] or found[2] if found else ""
    if is_loopback(bound):
        is_own = is_loopback(name)
    else:
        own = (bound.lower(), "localhost", socket.gethostname().lower())
        is_own = name in own or _ip_address(name) is not None
    if not is_own:
        return f"the request is for the host {host[:100]!r}, and this server is {bound}"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return f"the request comes from a page of {origin[:100]!r}, expected the server's own page"
    follows_link = method == "GET" and headers.get("Sec-Fetch-Dest") == "document"
    if not follows_link and headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return "the request comes from another site's page, expected the server's own page"
    return ""
