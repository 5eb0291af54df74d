"""The lines of a provider's batch: what validation refuses, how a line is answered, and the files with the answers."""

import json
import random
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from local.answers import UNANSWERABLE, answer
from local.replies import dumps
from local.simulation import Settings, digest, drawn_status, simulated_error

# A digest of a body has 24 hexadecimal digits.
DIGESTS = 16**24
BYTES_PER_TOKEN = 4
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = ("batch_cancelled", "This request was not executed because the batch was cancelled.")


@dataclass(frozen=True)
class Problem:
    """Why a batch failed at validation. ``line`` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass
class Answer:
    """The answer to one request; ``line`` is what the output or the error file has of it."""

    custom_id: str
    digest: str
    is_success: bool
    in_error_file: bool
    line: bytes
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class CheckedInput:
    """The answers to an input file's requests, in its order, and what is wrong with it."""

    answers: list[Answer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    model: str | None = None
    queued_tokens: int = 0


def check(content: bytes, endpoint: str, settings: Settings) -> CheckedInput:
    """Validate an input file as OpenAI does, and answer its requests."""
    checked = CheckedInput()
    custom_ids: set[str] = set()
    for number, line in _numbered(content):
        try:
            custom_id, body = _parsed(line, endpoint)
            if custom_id in custom_ids:
                raise _LineError("duplicate_custom_id", DUPLICATE.format(custom_id), "custom_id")
            custom_ids.add(custom_id)
            if body["model"] != (checked.model or body["model"]):
                raise _LineError("mismatched_model", MISMATCH.format(body["model"]), "body.model")
            checked.model = body["model"]
            body_digest = digest(body)
            if _is_bad(custom_id, body_digest, settings.batch_bad_lines):
                raise _LineError("invalid_request", "simulated refusal of this line", "body")
        except _LineError as error:
            checked.problems.append(Problem(error.code, error.message, number, error.param))
            continue
        checked.queued_tokens += len(line) // BYTES_PER_TOKEN
        checked.answers.append(_answer(custom_id, endpoint, body, body_digest, settings))
    if len(checked.answers) > settings.max_batch_requests:
        checked.problems.append(Problem("too_many_tasks", TOO_MANY.format(settings.max_batch_requests)))
    elif not checked.answers and not checked.problems:
        checked.problems.append(Problem("empty_file", EMPTY))
    return checked


# In OpenAI's words.
DUPLICATE = (
    "The custom_id '{}' for this request is a duplicate of another request. "
    "The custom_id parameter must be unique for each request in a batch."
)
MISMATCH = (
    "The model '{}' for this request does not match the rest of the batch. "
    "Each batch must contain requests for a single model."
)
TOO_MANY = "The number of requests in the input file exceeds the maximum allowed value of {:,}."
EMPTY = "The input file is empty. Please ensure that the batch contains at least one request."


class _LineError(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1."""
    start, number = 0, 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        number += 1
        if line := content[start:end].strip():
            yield number, line
        start = end + 1


def _parsed(line: bytes, endpoint: str) -> tuple[str, dict[str, Any]]:
    """The ``custom_id`` and the body of a request.

    Raises:
        _LineError: the line is no request to ``endpoint``.
    """
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _LineError("invalid_json_line", "This line is not parseable as valid JSON.")
    body = parsed.get("body")
    wanted = {name: parsed.get(name) for name in ("custom_id", "method", "url", "body")}
    wanted["body.model"] = body.get("model") if isinstance(body, dict) else None
    for param, value in wanted.items():
        if not isinstance(value, dict if param == "body" else str) or not value:
            raise _LineError("missing_required_parameter", f"Missing required parameter: '{param}'.", param)
    if parsed["method"] != "POST":
        raise _LineError("invalid_method", "The method of a request must be POST.", "method")
    if parsed["url"] != endpoint:
        raise _LineError("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url")
    return parsed["custom_id"], parsed["body"]


def _is_bad(custom_id: str, body_digest: str, bad_lines: list[str] | float) -> bool:
    """Whether a line is to be refused. A share is drawn by the body, so that a line stays bad or good."""
    if isinstance(bad_lines, list):
        return custom_id in bad_lines
    return int(body_digest, 16) < bad_lines * DIGESTS


def _answer(custom_id: str, endpoint: str, body: dict[str, Any], body_digest: str, settings: Settings) -> Answer:
    """A result, an error status, or an error in place of a response."""
    if random.random() < settings.batch_error_rate:
        line = _line(custom_id, None, ("server_error", "simulated failure without a response"))
        # OpenAI writes it to the error file, others to the output file.
        return Answer(custom_id, body_digest, False, random.random() < 0.5, line)
    status = drawn_status(settings.error_rate)
    if status is None:
        try:
            answered = answer(endpoint, body, settings.answer_bytes)
        except UNANSWERABLE:
            status = 400
        else:
            line = _line(custom_id, _response(200, answered))
            return Answer(custom_id, body_digest, True, False, line, *_tokens(answered.get("usage", {})))
    line = _line(custom_id, _response(status, simulated_error(status)))
    return Answer(custom_id, body_digest, False, True, line)


def _tokens(usage: dict[str, Any]) -> tuple[int, int]:
    """The tokens read and written, under either of their names; a moderation has none."""
    read = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    return read, usage.get("completion_tokens") or usage.get("output_tokens") or 0


def _response(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": secrets.token_hex(16), "body": body}


def _line(custom_id: str, response: dict[str, Any] | None, error: tuple[str, str] | None = None) -> bytes:
    fields = {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": custom_id,
        "response": response,
        "error": {"code": error[0], "message": error[1]} if error else None,
    }
    try:
        return dumps(fields).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8.
        return json.dumps(fields).encode()


def output_and_errors(
    answers: Iterable[Answer], unanswered: Iterable[Answer], reason: tuple[str, str], settings: Settings
) -> tuple[bytes, bytes]:
    """The output and the error file, both in no order, with the faults that the settings want.

    The requests in ``unanswered`` end with ``reason``, a code and a message.
    """
    output, errors = list[bytes](), list[bytes]()
    for each in answers:
        (errors if each.in_error_file else output).extend(_with_faults(each.line, settings))
    for each in unanswered:
        errors.extend(_with_faults(_line(each.custom_id, None, reason), settings))
    random.shuffle(output)
    random.shuffle(errors)
    return _joined(output), _joined(errors)


def _with_faults(line: bytes, settings: Settings) -> Iterator[bytes]:
    if random.random() >= settings.batch_missing_rate:
        yield line
    if random.random() < settings.batch_double_rate:
        yield line
    if random.random() < settings.batch_unknown_rate:
        # Some look like an id that a caller gives, such as a line's number.
        custom_id = random.choice([f"unknown-{secrets.token_hex(4)}", str(random.randrange(10**9, 10**10))])
        asked = {"model": "unknown", "messages": [{"content": "Whose?"}]}
        yield _line(custom_id, _response(200, answer("/v1/chat/completions", asked)))


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
