"""The name of a file: any name that a client sends, without an extension of another format."""

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from nightshift.core.errors import BadRequestError

MAX_NAME = 512
# SDKs send "upload", "unknown_file" or "anonymous_file" for bytes that have no name.
DEFAULT_NAME = "upload"
# No extension after the last slash, or .jsonl in any case.
PATTERN = r"^(?:(?:.*[/\\])?[^./\\]*|.*\.[jJ][sS][oO][nN][lL])$"
_NAME = re.compile(PATTERN, re.DOTALL)


def check_name(name: str | None, param: str) -> str:
    """The name to record. A file without one gets ``DEFAULT_NAME``; RFC 2047's encoded words are decoded.

    Raises:
        BadRequestError: ``invalid_filename``: the name is too long, or its extension is not .jsonl.
    """
    name = _decoded(name or DEFAULT_NAME)
    if len(name) > MAX_NAME:
        message = f"The file name has {len(name)} characters; the limit is {MAX_NAME}."
        raise BadRequestError(message, code="invalid_filename", param=param)
    if not _NAME.match(name):
        extension = name.rpartition(".")[2][:32]
        message = (
            f"Invalid file extension {'.' + extension!a}. The supported format is JSONL: send a name that ends in "
            ".jsonl, or a name without an extension."
        )
        raise BadRequestError(message, code="invalid_filename", param=param)
    return name


def _decoded(name: str) -> str:
    if "=?" not in name:
        return name
    try:
        # Some character sets can hold half of a character, which UTF-8 cannot encode.
        return str(make_header(decode_header(name))).encode("utf-8", "replace").decode()
    except (HeaderParseError, LookupError, UnicodeError, ValueError):
        return name
