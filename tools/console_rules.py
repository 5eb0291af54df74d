"""The rules of input files for the console, which checks a file in the browser before it is uploaded.

``make openapi`` writes ``console/src/rules.json`` (limits and endpoints, from the server's own tables) and
``console/tests/files.json`` (files with the faults that the server finds in them, which the console's tests compare).
A test compares both with the code, so that the two checks cannot drift apart.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from nightshift.core.json_tokens import MAX_DEPTH
from nightshift.input import file_check, line_check
from nightshift.input.file_check import FileCheck
from nightshift.routes.endpoint import DEFAULT, ENDPOINTS, Endpoint, EndpointPath

_CONSOLE = Path(__file__).parents[1] / "console"
RULES = _CONSOLE / "src/rules.json"
FILES = _CONSOLE / "tests/files.json"

# What a field of a line may be besides what it should be. ABSENT leaves it out.
ABSENT = object()
_VALUES: tuple[Any, ...] = (ABSENT, None, True, False, 7, -1.5, "", "x", "x" * 100, "ü'\"\\\n", [], [[]], ["x"], {})


def rules() -> dict[str, Any]:
    """The limits and the endpoints."""
    return {
        "max_lines": file_check.MAX_LINES,
        "max_file_bytes": file_check.MAX_FILE_BYTES,
        "max_line_bytes": line_check.MAX_LINE_BYTES,
        "max_faults": file_check.MAX_FAULTS,
        "max_blank_lines": file_check.MAX_BLANK_LINES,
        "max_depth": MAX_DEPTH,
        "default_endpoint": DEFAULT,
        "endpoints": [
            {
                "path": row.path,
                "prompt": row.prompt,
                "prompt_kinds": row.prompt_kinds,
                "refused": row.refused,
                "max_inputs": row.max_inputs,
            }
            for row in ENDPOINTS.values()
        ],
    }


def checked_files() -> list[dict[str, Any]]:
    """Files, each with its endpoint, its bytes as base64, and the faults, model and number of lines that are found."""
    return [_checked(endpoint.path, content) for endpoint in ENDPOINTS.values() for content in _files(endpoint)]


def documents() -> dict[Path, str]:
    """What each file should have in it."""
    return {
        RULES: json.dumps(rules(), indent=2) + "\n",
        FILES: "[\n" + ",\n".join(json.dumps(each, separators=(",", ":")) for each in checked_files()) + "\n]\n",
    }


def _checked(endpoint: EndpointPath, content: bytes) -> dict[str, Any]:
    check = FileCheck(endpoint)
    check.feed(content)
    check.finish()
    return {
        "endpoint": endpoint,
        "content": base64.b64encode(content).decode(),
        "faults": msgspec.to_builtins(check.faults),
        "model": check.model,
        "lines": check.lines,
    }


def _files(endpoint: Endpoint) -> Iterator[bytes]:
    for field in ("custom_id", "method", "url", "body"):
        yield _file(*(_line(endpoint, number, {field: value}) for number, value in enumerate(_VALUES)))
    for field in ("model", endpoint.prompt, *endpoint.refused):
        lines = (_line(endpoint, number, body={field: value}) for number, value in enumerate(_VALUES))
        yield _file(*lines)
    good = _line(endpoint, 0)
    other = _line(endpoint, 1)
    yield from (
        b"",
        b"\n",
        b"\n\n\n",
        b" \r\n\t",
        good,
        good + b"\n",
        good + b"\n\n \n",
        b"\n" + good,
        good + b"\n\n" + other,
    )
    yield _file(good, good, other, other)
    yield _file(good, _line(endpoint, 1, body={"model": "other"}), _line(endpoint, 2, body={"model": "m'\"" * 40}))
    yield _file(
        b"\xef\xbb\xbf" + good, b"\xff\xfe", b"{", b"[]", b'"x"', b"7", b"null", b"true", b"nope", good + b"}", b"{}"
    )
    yield _file(_deep(endpoint, MAX_DEPTH - 5), _deep(endpoint, MAX_DEPTH + 1), good)
    yield _file(good.replace(b'"0"', rb'"\ud83d"'), other.replace(b'"1"', rb'"\ud83d\ude00"'))
    yield _file(*(b"{" for _ in range(file_check.MAX_FAULTS + 3)))
    if endpoint.path == DEFAULT:
        yield _file(*(b'{"custom_id":"%d"}' % number for number in range(40)))


def _line(
    endpoint: Endpoint, number: int, fields: dict[str, Any] | None = None, body: dict[str, Any] | None = None
) -> bytes:
    prompt = [{"role": "user", "content": "Hi"}] if "an array" in endpoint.prompt_kinds else "Hi"
    request = _present({"model": "m", endpoint.prompt: prompt} | (body or {}))
    line = {"custom_id": str(number), "method": "POST", "url": endpoint.path, "body": request} | (fields or {})
    return json.dumps(_present(line), ensure_ascii=False).encode()


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def _deep(endpoint: Endpoint, levels: int) -> bytes:
    return _line(endpoint, levels, body={"extra": "here"}).replace(b'"here"', b"[" * levels + b"]" * levels)


def _file(*lines: bytes) -> bytes:
    return b"\n".join(lines) + b"\n"


def main() -> None:
    for path, content in documents().items():
        # What is as it was keeps its time, so that make does not build the console again.
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


if __name__ == "__main__":
    main()
