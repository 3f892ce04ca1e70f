"""Who may talk to the page's server: its own page, under a name that no stranger can point here."""

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit


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
