"""The web server of the page, on Python's own `http.server`: one request at a time reaches the model."""

import contextlib
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fairseq_resynth.evaluation.report.page import asset
from fairseq_resynth.play.live import WebSocket, accept_key, converse
from fairseq_resynth.play.sessions import PlaySession, RecordingExpired

ASSETS = Path(__file__).parent / "assets"
MAX_REQUEST_BYTES = 1 << 16  # of JSON
MAX_PENDING = 8  # requests with a body at a time, each up to the upload limit in memory
MAX_LIVE = 2  # live conversions at a time; each takes a processor core
TIMEOUT_SECONDS = 30.0  # without a byte until a connection is closed
_READ_BYTES = 1 << 16
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RequestError(Exception):
    """A request that is refused, with a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class PlayServer(ThreadingHTTPServer):
    """Serves the page at (host, port), port 0 being any free one; uploads have up to `max_bytes`.

    Raises OSError if the address is in use, or is not one of this machine.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], session: PlaySession, max_bytes: int):
        self.session, self.max_bytes, self.bound = session, max_bytes, address[0]
        self.slots = threading.BoundedSemaphore(MAX_PENDING)
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs a broken connection at the level of debugging, without a traceback on the terminal."""
        logging.getLogger(__name__).debug("connection of %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    timeout = TIMEOUT_SECONDS
    server_version, sys_version = "resynth", ""

    def do_GET(self) -> None:
        """Answers with the page, its files or the description of the model."""
        self._serve(self._get)

    def do_POST(self) -> None:
        """Answers uploads and conversions."""
        self._serve(self._post)

    def _serve(self, action: Callable[[], None]) -> None:
        try:
            reason = check_origin(self.headers, self.server.bound)
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
        if not self.server.live_slots.acquire(blocking=False):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_LIVE} live conversions are running: try again later",
            )
        try:
            self.close_connection = True
            self.wfile.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {key}\r\n\r\n".encode()
            )
            converse(WebSocket(self.rfile, self.wfile), self.server.session)
        finally:
            self.server.live_slots.release()
        # What the client still sends is read for a moment: cut off while sending, it would see no answer.
        self.connection.settimeout(1.0)
        with contextlib.suppress(OSError):
            for _ in range(64):
                if not self.rfile.read1(_READ_BYTES):
                    break

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
        if not self.server.slots.acquire(blocking=False):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_PENDING} requests are waiting: try again later",
            )
        try:
            self._answer(action(self._body(limit)))
        finally:
            self.server.slots.release()

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
        body = self.rfile.read(length)
        if len(body) < length:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"the upload broke off: {len(body)} of {length} bytes came"
            )
        return body

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def _refuse(self, error: RequestError) -> None:
        """Answers after the rest of the body: a browser that is cut off while sending shows no answer."""
        left = min(self._length() or 0, 4 * self.server.max_bytes)
        if error.status == HTTPStatus.BAD_REQUEST:
            left = 0  # the body ended early
        self.connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while left > 0:
                piece = self.rfile.read(min(left, _READ_BYTES))
                left -= len(piece) or left
        self._answer({"error": str(error)}, error.status)

    def _answer(self, values: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(values).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers broken HTTP, and methods other than GET and POST, in JSON as well."""
        status = HTTPStatus(code)
        self._answer(
            {"error": f"{message or status.phrase}: expected a GET or POST request"}, status
        )

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


def check_origin(headers: Mapping[str, str], bound: str) -> str:
    """The reason why a server bound to `bound` refuses a request of another site's page, or "".

    Another site can make its own name resolve to this machine (DNS rebinding) and read what this server
    answers. The `Host` of such requests is that name, instead of an address or `localhost`. A site that does
    not do so can still send requests, whose `Origin` then differs from their `Host`.
    """
    host = headers.get("Host", "")
    name, page = "", ""
    with contextlib.suppress(ValueError):  # brackets that are no IPv6 address
        name = (urlsplit(f"//{host}").hostname or "").lower()
    if is_loopback(bound):
        is_own = is_loopback(name)
    else:
        own = (bound.lower(), "localhost", socket.gethostname().lower())
        is_own = name in own or _ip_address(name) is not None
    if not is_own:
        return f"the request is for the host {host[:100]!r}, and this server is {bound}"
    origin = headers.get("Origin")
    with contextlib.suppress(ValueError):
        page = urlsplit(origin or "").netloc.lower()
    if origin is not None and page != host.lower():
        return f"the request comes from a page of {origin[:100]!r}, expected the server's own page"
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "the request comes from another site's page, expected the server's own page"
    return ""
