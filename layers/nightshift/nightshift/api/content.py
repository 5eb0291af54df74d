"""The download of a file: its bytes where they fit into one response, and a redirect to S3 where they do not."""

import json
from collections.abc import Mapping

import msgspec
from aws_lambda_powertools.event_handler import Response

from nightshift.core import bucket
from nightshift.core.errors import NotFoundError
from nightshift.files import store as files
from nightshift.files.byte_range import UnsatisfiableRangeError, parse_range
from nightshift.files.record import File

# A larger file is redirected.
INLINE_BYTES = 2 * 1024 * 1024
# Lambda's response has at most 6 MB, in which the body stands as a JSON string: quotes, and every character that is not
# ASCII, take more bytes there than in the file.
MAX_RESPONSE_CHARACTERS = 5_500_000


class Redirect(msgspec.Struct, frozen=True):
    """The body of a redirect, for clients that do not follow it by themselves."""

    location: str
    message: str = (
        "The file is too large for one response. Get it from the URL in the Location header, without the "
        "Authorization header, because S3 refuses a second kind of authentication (curl -L does both)."
    )
    object: str = "redirect"


def content_response(method: str, headers: Mapping[str, str], file: File) -> Response[str]:
    """The response to a GET or HEAD of the file's content. ``Range``, ``If-Range`` and ``If-None-Match`` count.

    Raises:
        NotFoundError: the file's bytes are gone.
    """
    if file.size > INLINE_BYTES:
        return _redirect(method, file)
    key = files.key(file.account_id, file.id)
    found = bucket.head(key)
    content = bucket.read(key)
    if found is None or content is None:
        raise NotFoundError("File not found.", code="file_not_found", param="file_id")
    etag = found["ETag"]
    shown = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
        "Content-Disposition": files.attachment(file.filename),
    }
    if _matches(headers.get("if-none-match"), etag):
        return Response(304, content_type=files.CONTENT_TYPE, body="", headers=shown)
    ranged = headers.get("range") if headers.get("if-range") in (None, etag) else None
    try:
        part = parse_range(ranged, len(content))
    except UnsatisfiableRangeError:
        unsatisfied = shown | {"Content-Range": f"bytes */{len(content)}"}
        return Response(416, content_type=files.CONTENT_TYPE, body="", headers=unsatisfied)
    status = 200
    if part is not None:
        status, start, end = 206, *part
        shown["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        content = content[start:end]
    text = _as_text(content)
    if text is None:
        return _redirect(method, file)
    # The gateway counts the bytes of a GET itself; the response to a HEAD has none to count.
    shown["Content-Length"] = str(len(content))
    return Response(status, content_type=files.CONTENT_TYPE, body=text if method == "GET" else "", headers=shown)


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header, which may list several tags, names ``etag``; weak tags count (RFC 9110, 13.1.2).

    An ETag of S3 has no comma.
    """
    tags = (tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(","))
    return any(tag in (etag, "*") for tag in tags)


def _as_text(content: bytes) -> str | None:
    """``content`` as the text of a response; None where it does not fit, or is not UTF-8.

    A range may begin or end inside of a character: S3 serves such bytes.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if len(json.dumps(text)) <= MAX_RESPONSE_CHARACTERS else None


def _redirect(method: str, file: File) -> Response[str]:
    location = files.download_url(file, head=method == "HEAD")
    body = msgspec.json.encode(Redirect(location)).decode()
    headers = {"Location": location, "Cache-Control": "no-store"}
    return Response(302, content_type="application/json", body=body, headers=headers)
