"""Which addresses webhooks may go to: public ones over HTTPS, and none inside a private network."""

import ipaddress
import re
import urllib.parse

from nightshift.core.errors import BadRequestError

PORTS = frozenset({443, 8443})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not public, though some versions of Python say so: IPv4-compatible and -translated, local NAT64 (RFC 8215),
# site-local, and documentation (RFC 9637).
_NOT_PUBLIC = [
    ipaddress.ip_network(each) for each in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10", "3fff::/20")
]
_PRIVATE_SUFFIXES = frozenset({"localhost", "local", "internal", "arpa"})
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}\.?", re.IGNORECASE)


def is_public(address: str) -> bool:
    """Whether the numeric ``address`` is on the public internet."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        # An IPv6 address that embeds an IPv4 address is as public as that one.
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if embedded is None and parsed in _NAT64:
            embedded = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        if any(parsed in network for network in _NOT_PUBLIC):
            return False
    return parsed.is_global and not parsed.is_multicast


def is_loopback(address: str) -> bool:
    """Whether the numeric ``address`` is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # An embedded IPv4 address does not count, though some versions of Python say so.
    return parsed.is_loopback and not (isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped)


def is_local(url: str) -> bool:
    """Whether ``url`` is plain HTTP to loopback by its name, which a local stack allows too."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and (parts.hostname == "localhost" or is_loopback(parts.hostname or ""))


def check_url(url: str, *, allow_local: bool = False, param: str = "callback_url") -> None:
    """Check the URL as far as that needs no look-up of its host. ``allow_local`` allows plain HTTP to loopback.

    Raises:
        BadRequestError: ``invalid_callback_url``.
    """
    problem = _problem(url, allow_local)
    if problem:
        raise BadRequestError(f"{param} {problem}.", code="invalid_callback_url", param=param)


def _problem(url: str, allow_local: bool) -> str | None:
    if not url.isascii() or any(char <= " " or char == "\x7f" or char == "\\" for char in url):
        return "must not contain spaces, control or non-ASCII characters"
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL"
    if not host:
        return "must name a host"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or password"
    if allow_local and is_local(url):
        return None
    if parts.scheme != "https":
        return "must start with https://"
    if (443 if port is None else port) not in PORTS:
        return "must use port 443 or 8443"
    if ":" in host or host.replace(".", "").isdigit() or host.rpartition(".")[2][:2].lower() == "0x":
        return None if is_public(host) else "must be a public address"
    last = host.rstrip(".").rpartition(".")[2].lower()
    if len(host) > 253 or not _HOST_NAME.fullmatch(host) or last.isdigit() or last in _PRIVATE_SUFFIXES:
        return "must be a public host name"
    return None
