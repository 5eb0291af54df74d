"""Multipart forms."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from nightshift.api.requests import body_bytes
from nightshift.core.errors import BadRequestError

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayRestResolver
    from python_multipart.multipart import Field, File


@dataclass(slots=True)
class Form:
    """A multipart form: its text fields, and its one file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content: bytes | None = None


def parse_form(app: "APIGatewayRestResolver", file_part: str) -> Form:
    """The call's multipart body. The part named ``file_part`` is the file; the order of parts does not matter.

    Raises:
        BadRequestError: the body is not a well-formed multipart form.
        TooLargeError: the body is over ``MAX_CALL_BYTES``.
    """
    import python_multipart

    content = body_bytes(app)
    form = Form()

    def on_field(part: "Field") -> None:
        form.fields[_text(part.field_name)] = _text(part.value)

    def on_file(part: "File") -> None:
        if part.field_name == file_part.encode():
            part.file_object.seek(0)
            form.content = part.file_object.read()
            form.filename = _text(part.file_name)
        part.close()

    content_type = (app.current_event.headers.get("content-type") or "").encode("latin-1", "replace")
    try:
        python_multipart.parse_form({"Content-Type": content_type}, BytesIO(content), on_field, on_file)
    except (python_multipart.exceptions.FormParserError, ValueError):
        raise BadRequestError(
            "The request body is not a well-formed multipart form. Send it as multipart/form-data, with the boundary "
            "in the Content-Type header.",
            code="invalid_body",
        ) from None
    return form


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
