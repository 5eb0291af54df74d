"""Every error has one envelope, and a message that can be sent."""

from typing import Any

import msgspec
import pytest
from nightshift.api.resources import error_envelope
from nightshift.core.errors import BadRequestError, Fault, InvalidFileError, NightshiftError

from tests.unit.core.test_errors import all_errors, make


def sent(error: NightshiftError) -> dict[str, Any]:
    """The ``error`` object of the response's JSON."""
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(error_envelope(error)))
    assert set(body) == {"error"}
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("kind", list(all_errors()))
def test_an_envelope_has_all_four_keys(kind: type[NightshiftError]) -> None:
    error = sent(make(kind))
    assert set(error) - {"details"} == {"message", "type", "param", "code"}
    assert error["type"] == {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
        kind.status, "invalid_request_error"
    )


def test_an_envelope_has_code_and_param() -> None:
    error = sent(BadRequestError("Words.", code="invalid_value", param="limit"))
    assert error == {
        "message": "Words.",
        "type": "invalid_request_error",
        "param": "limit",
        "code": "invalid_value",
    }
    assert sent(BadRequestError("Words."))["code"] is None


def test_a_file_error_has_every_fault() -> None:
    details = [Fault("invalid_url", "m", "url", 3)]
    assert sent(InvalidFileError("Words.", code="batch_invalid_jsonl", details=details)) == {
        "message": "Words.",
        "type": "invalid_request_error",
        "param": "input_file_id",
        "code": "batch_invalid_jsonl",
        "details": [{"code": "invalid_url", "message": "m", "param": "url", "line": 3}],
    }


def test_half_a_surrogate_pair_is_replaced() -> None:
    error = sent(BadRequestError("No \ud800.", param="\udfff"))
    assert (error["message"], error["param"]) == ("No ?.", "?")
