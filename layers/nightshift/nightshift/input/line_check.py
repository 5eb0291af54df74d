"""The check of one line of an input file: a quick one, and for a line that fails it one that finds every fault.

The codes are those that OpenAI records in the ``errors`` of a failed batch; ``docs/contract.md`` lists them.
"""

from collections.abc import Sequence

import msgspec

from nightshift.core.errors import Fault
from nightshift.core.json_tokens import MAX_DEPTH, too_deep
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.input.identity import Identity, identity_of
from nightshift.routes.endpoint import Endpoint

# Room for an image as base64. A worker holds a few such lines at a time (docs/operations.md, Memory).
MAX_LINE_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_NULL = b"null"
_KINDS = {
    ord('"'): "a string",
    ord("["): "an array",
    ord("{"): "an object",
    ord("t"): "a boolean",
    ord("f"): "a boolean",
    ord("n"): "null",
}
# Values are not decoded, because JSON allows numbers that no program can hold.
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Fields = dict[str, bytes]


class LineReport(msgspec.Struct, frozen=True):
    """The faults of one line, without its number; its custom_id and its model, each None if it cannot be used.

    ``inputs`` is how many inputs a valid line has.
    """

    faults: Sequence[Fault] = ()
    custom_id: str | None = None
    model: str | None = None
    inputs: int = 0


def check_line(line: bytes, endpoint: Endpoint) -> LineReport:
    """Check everything that the bytes of one line show."""
    if len(line) > MAX_LINE_BYTES:
        return LineReport([Fault("line_too_long", f"The line is too long; the limit is {MAX_LINE_BYTES} bytes.")])
    # msgspec refuses lone surrogates.
    whole = without_lone_surrogates(line)
    identity = identify(whole, endpoint)
    return LineReport((), *identity) if identity else _diagnose(whole, endpoint)


def identify(line: bytes, endpoint: Endpoint) -> Identity | None:
    """What identifies a valid line, quickly; None for a line that needs ``check_line``."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        # msgspec does not check the UTF-8 of values that it skips.
        if not line.isascii():
            line.decode()
        return identity_of(line, endpoint)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def quote(text: str) -> str:
    """A caller's text for a message: in quotes, safe to print, and cut at 80 characters."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


# --- the slow check ------------------------------------------------------------------------------------------------


def _diagnose(line: bytes, endpoint: Endpoint) -> LineReport:
    """Every fault of a line that failed the quick check."""
    fields = _fields(line)
    if isinstance(fields, Fault):
        return LineReport([fields])
    custom_id = _text(fields, "custom_id", missing="missing_required_parameter")
    model: str | Fault | None = None
    found = [custom_id, _method_fault(fields), _url_fault(fields, endpoint)]
    body = _body(fields)
    if isinstance(body, Fault):
        found.append(body)
    else:
        model = _text(body, "model", "body.", missing="invalid_request")
        found += [model, _prompt_fault(body, endpoint), *_refused_faults(body, endpoint)]
    faults = [each for each in found if isinstance(each, Fault)]
    # The quick check refuses repeated keys if one value has a wrong type. This check reads the last value of each key.
    return LineReport(
        faults or [Fault("invalid_json_line", "The line is not a valid request; check it for repeated keys.")],
        custom_id if isinstance(custom_id, str) else None,
        model if isinstance(model, str) else None,
    )


def _fields(line: bytes) -> Fields | Fault:
    """The fields of the line, each value as its JSON; or why the line is not a JSON object."""
    if line.startswith(_BOM):
        return _unreadable("The line starts with a byte order mark (BOM); save the file as UTF-8 without it.")
    if not line.strip():
        return _unreadable("The line is blank; remove it.")
    if too_deep(line):
        return _unreadable(f"The line is nested deeper than {MAX_DEPTH} levels.")
    try:
        line.decode()
        return _members(line)
    except UnicodeDecodeError:
        return _unreadable("The line is not valid UTF-8; save the file as UTF-8.")
    except msgspec.ValidationError:
        return _unreadable(f"The line is not a JSON object, but {_kind(line.lstrip())}.")
    except msgspec.DecodeError as error:
        return _unreadable(f"The line is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}.")


def _members(document: bytes) -> Fields:
    return {name: bytes(value) for name, value in _decode_object(document).items()}


def _text(fields: Fields, name: str, parent: str = "", *, missing: str) -> str | Fault:
    """A field that must be a string and not empty; without it the fault has the code ``missing``."""
    value = fields.get(name, _NULL)
    param = parent + name
    if value == _NULL:
        return _missing(param, missing)
    if not value.startswith(b'"'):
        return _wrong_type(param, ("a string",), value)
    text: str = msgspec.json.decode(value)
    return text or _empty(param)


def _method_fault(fields: Fields) -> Fault | None:
    method = fields.get("method", _NULL)
    if method == _NULL:
        return _missing("method")
    if _is_text(method, "POST"):
        return None
    return Fault("invalid_method", f"Invalid value for method: {_shown(method)}; use 'POST'.", "method")


def _url_fault(fields: Fields, endpoint: Endpoint) -> Fault | None:
    url = fields.get("url", _NULL)
    if url == _NULL:
        return _missing("url")
    if _is_text(url, endpoint.path):
        return None
    return Fault("invalid_url", f"The url {_shown(url)} does not match the endpoint {endpoint.path}.", "url")


def _body(fields: Fields) -> Fields | Fault:
    body = fields.get("body", _NULL)
    if body == _NULL:
        return _missing("body")
    try:
        return _members(body)
    except msgspec.DecodeError:
        return _wrong_type("body", ("an object",), body)


def _prompt_fault(body: Fields, endpoint: Endpoint) -> Fault | None:
    prompt = body.get(endpoint.prompt, _NULL)
    param = f"body.{endpoint.prompt}"
    if prompt == _NULL:
        return _missing(param, "invalid_request")
    if _kind(prompt) not in endpoint.prompt_kinds:
        return _wrong_type(param, endpoint.prompt_kinds, prompt)
    is_empty = prompt == b'""' or (prompt.startswith(b"[") and not prompt[1:-1].strip())
    return _empty(param) if is_empty else None


# The code of a field that must not be true, and what it asks for.
_REFUSALS = {
    "stream": ("streaming_unsupported", "Streaming"),
    "background": ("invalid_request", "A background response"),
}


def _refused_faults(body: Fields, endpoint: Endpoint) -> list[Fault]:
    faults: list[Fault] = []
    for name in endpoint.refused:
        if body.get(name, _NULL) not in (_NULL, b"false"):
            code, asked = _REFUSALS[name]
            faults.append(Fault(code, f"{asked} is not supported in a batch; remove body.{name}.", f"body.{name}"))
    return faults


# --- faults and values ---------------------------------------------------------------------------------------------


def _unreadable(message: str) -> Fault:
    return Fault("invalid_json_line", message)


def _missing(param: str, code: str = "missing_required_parameter") -> Fault:
    return Fault(code, f"Missing required parameter: {param}.", param)


def _wrong_type(param: str, expected: Sequence[str], value: bytes) -> Fault:
    message = f"Invalid type for {param}: expected {' or '.join(expected)}, but got {_kind(value)}."
    return Fault("invalid_request", message, param)


def _empty(param: str) -> Fault:
    return Fault("invalid_request", f"Invalid value for {param}: it must not be empty.", param)


def _kind(value: bytes) -> str:
    """The type of a JSON value, with its article."""
    return _KINDS.get(value[0], "a number")


def _is_text(value: bytes, text: str) -> bool:
    return value.startswith(b'"') and msgspec.json.decode(value) == text


def _shown(value: bytes) -> str:
    """A JSON value for a message: a string in quotes, anything else by its type."""
    return quote(msgspec.json.decode(value)) if value.startswith(b'"') else _kind(value)
