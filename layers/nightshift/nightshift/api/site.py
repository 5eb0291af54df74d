"""The console, the API's reference and its OpenAPI document: static files that the API's function carries.

``make`` builds the pages from ``console/``. A page changes with the stack and is asked for each time; the files that it
loads have a digest in their names, and browsers keep them for a year.
"""

import re
from importlib import resources
from pathlib import Path

from aws_lambda_powertools.event_handler import Response

from nightshift.core import bucket
from nightshift.core.errors import NotFoundError

_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_ASSET = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}\.(js|css|svg)", re.ASCII)


def openapi() -> Response[str]:
    """The OpenAPI document, which ``make openapi`` has written."""
    document = resources.files("nightshift.api").joinpath("openapi.json").read_text()
    return Response(200, content_type="application/json", body=document)


def page(folder: Path, name: str) -> Response[str]:
    """The page ``name`` of ``folder``. It may load files of this API, and send to it and to the bucket: nothing else.

    Raises:
        NotFoundError: the stack was deployed without its pages.
    """
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(
            (
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self' data:",
                f"connect-src 'self' {bucket.origin()}",
                "worker-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return _file(folder / f"{name}.html", "text/html", headers)


def asset(folder: Path, name: str) -> Response[str]:
    """A file that a page loads.

    Raises:
        NotFoundError: there is none with this name.
    """
    match = _ASSET.fullmatch(name)
    if match is None:
        raise _not_found()
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return _file(folder / "console" / "assets" / name, _TYPES[match[1]], headers)


def _file(path: Path, media_type: str, headers: dict[str, str]) -> Response[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _not_found() from None
    return Response(200, content_type=f"{media_type}; charset=utf-8", body=text, headers=headers)


def _not_found() -> NotFoundError:
    return NotFoundError("Not found: there is no such page or file.", code="unknown_url")
