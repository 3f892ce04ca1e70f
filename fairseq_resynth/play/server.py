"""The page's web server: Python's own, one request at a time at the model, every mistake one sentence."""

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
from fairseq_resynth.play.sessions import NotKept, Studio

ASSETS = Path(__file__).parent / "assets"
LARGEST_WISH = 1 << 16  # bytes of JSON
WAITING = 8  # requests with a body at a time, each up to the upload limit in memory
PATIENCE = 30.0  # seconds without a byte until a connection is given up
_PIECE = 1 << 16
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refusal(Exception):
    """A request that is not served: a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class PlayServer(ThreadingHTTPServer):
    """Serves the page.

    Args:
        address: (host, port); port 0: any free one.
        studio: the models.
        max_bytes: of an upload.

    Raises:
        OSError: the address is taken, or not this machine's.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], studio: Studio, max_bytes: int):
        self.studio, self.max_bytes, self.bound = studio, max_bytes, address[0]
        self.places = threading.BoundedSemaphore(WAITING)
        self.files = {
            "/": ("text/html", (ASSETS / "play.html").read_bytes()),
            "/page.css": ("text/css", asset("page.css").encode()),
            "/play.css": ("text/css", (ASSETS / "play.css").read_bytes()),
            "/play.js": ("text/javascript", (ASSETS / "play.js").read_bytes()),
            "/pictures.js": ("text/javascript", (ASSETS / "pictures.js").read_bytes()),
        }
        self.address_family = socket.AF_INET6 if ":" in self.bound else socket.AF_INET
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bound, self.bound)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news."""
        logging.getLogger(__name__).debug("connection of %s broke", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    timeout = PATIENCE
    server_version, sys_version = "resynth", ""

    def do_GET(self) -> None:
        """The page, its files and what the model is."""
        self._serve(self._get)

    def do_POST(self) -> None:
        """Uploads and conversions."""
        self._serve(self._post)

    def _serve(self, action: Callable[[], None]) -> None:
        try:
            reason = check_origin(self.headers, self.server.bound)
            if reason:
                raise Refusal(HTTPStatus.FORBIDDEN, reason)
            action()
        except Refusal as error:
            self._refuse(error)
        except NotKept as error:
            self._answer({"error": str(error)}, HTTPStatus.GONE)
        except (ValueError, FileNotFoundError) as error:
            self._answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # whoever asked has gone
        except Exception:  # one request must not end the others
            logging.getLogger(__name__).exception("%s %s", self.command, self.path[:100])
            error = "the server failed at this request; its terminal shows why"
            self._answer({"error": error}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _get(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/model":
            limits = {"max_bytes": self.server.max_bytes}
            self._answer({**self.server.studio.describe(), **limits})
        elif path in self.server.files:
            kind, content = self.server.files[path]
            self._send(content, f"{kind}; charset=utf-8", HTTPStatus.OK)
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:100]}")

    def _post(self) -> None:
        studio, largest = self.server.studio, self.server.max_bytes
        actions = {
            "/api/source": (studio.add_source, largest),
            "/api/reference": (studio.add_reference, largest),
            "/api/speech": (studio.speak, LARGEST_WISH),
        }
        if self.path not in actions:
            raise Refusal(HTTPStatus.NOT_FOUND, f"nothing is taken at {self.path[:100]}")
        action, limit = actions[self.path]
        if not self.server.places.acquire(blocking=False):
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING} requests are waiting: try again later"
            )
        try:
            self._answer(action(self._body(limit)))
        finally:
            self.server.places.release()

    def _body(self, limit: int) -> bytes:
        kind = self.headers.get_content_type()
        if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"found a form ({kind}), expected the file's bytes as they are "
                "(curl --data-binary @FILE -H 'Content-Type: audio/*')",
            )
        length = self._length()
        if length is None:
            raise Refusal(
                HTTPStatus.LENGTH_REQUIRED,
                "the request does not say how long it is (Content-Length)",
            )
        if length > limit:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{length / 1e6:.3g} MB are too much, up to {limit / 1e6:.3g} MB are taken",
            )
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"the upload broke off: {len(body)} of {length} bytes came"
            )
        return body

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def _refuse(self, error: Refusal) -> None:
        """Reads on for a while first: a browser that is cut off while it sends never shows the answer."""
        left = min(self._length() or 0, 4 * self.server.max_bytes)
        if error.status == HTTPStatus.BAD_REQUEST:
            left = 0  # it ended early
        self.connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while left > 0:
                piece = self.rfile.read(min(left, _PIECE))
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
        """Answers what is no HTTP, or another method than GET and POST, as JSON too."""
        del explain
        status = HTTPStatus(code)
        self._answer({"error": f"{message or status.phrase}: expected GET or POST of HTTP"}, status)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the terminal free."""
        logging.getLogger(__name__).debug(format, *args)


def is_loopback(host: str) -> bool:
    """Tells whether only this machine reaches a server that is bound to `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(headers: Mapping[str, str], bound: str) -> str:
    """Returns why a request is refused, or nothing.

    A page elsewhere can have its own name resolve to this machine (DNS rebinding) and read what is served
    here; its requests carry that name in `Host`, where an address or `localhost` would be. One that does not
    can still send: `Origin` then is another than ours.

    Args:
        headers: of the request.
        bound: the host that the server is bound to.
    """
    host = headers.get("Host", "")
    name = _hostname(f"//{host}")
    if not _is_ours(name, bound):
        return f"the request is for the host {host[:100]!r}, and this server is {bound}"
    origin = headers.get("Origin")
    if origin is not None and urlsplit_netloc(origin) != host.lower():
        return f"the request comes from a page of {origin[:100]!r}, only the server's own may ask"
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "the request comes from another site's page, only the server's own may ask"
    return ""


def urlsplit_netloc(origin: str) -> str:
    """Returns `host:port` of an Origin header in lower case, empty if it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _hostname(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_ours(name: str, bound: str) -> bool:
    if is_loopback(bound):
        return is_loopback(name)
    if name in (bound.lower(), "localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False
