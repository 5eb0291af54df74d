"""The OpenAPI 3.1 document, from the API's models and response shapes.

``make openapi`` writes it to ``nightshift/api/openapi.json``, which the API serves, and the events' schema into
``docs``. Tests compare both with the code, and the operations with the functions' and the template's routes.
"""

import json
from pathlib import Path
from typing import Any

from nightshift.api.app import is_public
from nightshift.api.content import Redirect
from nightshift.api.resources import ErrorEnvelope
from pydantic.json_schema import models_json_schema

from tools.event_schema import EVENT_SCHEMA, event_schema
from tools.operations import OPERATIONS, Form, Link, Operation
from tools.schemas import REF_TEMPLATE, components, reference

DOCUMENT = Path(__file__).parents[1] / "layers/nightshift/nightshift/api/openapi.json"

Json = dict[str, Any]

_ERRORS_OF_EVERY_CALL = {
    401: "The API key is missing, malformed or unknown.",
    500: "The server had an error. `x-request-id` tells the operator which.",
}
_EXAMPLES: dict[int, Json] = {
    400: {"message": "limit: invalid value '101'. It must be at most 100.", "code": "invalid_value", "param": "limit"},
    401: {"message": "Incorrect API key provided.", "code": "invalid_api_key", "param": None},
    404: {"message": "No such batch.", "code": "batch_not_found", "param": "batch_id"},
}
# The statuses that tell what is wrong with a call; the others are the same for every call.
_REFUSALS = frozenset({400, 404, 409, 429, 503})
_REQUEST_ID = {"x-request-id": {"schema": {"type": "string"}, "description": "Name it when asking for help."}}
# What a download may be besides its whole content.
_CONTENT: Json = {
    "206": {"description": "The part that `Range` names.", "headers": _REQUEST_ID},
    "302": {
        "description": "A file that is too large for one response: where its bytes are, for 15 minutes. Get them "
        "without the Authorization header.",
        "headers": _REQUEST_ID | {"Location": {"schema": {"type": "string", "format": "uri"}}},
        "content": {"application/json": {"schema": reference(Redirect)}},
    },
    "304": {"description": "The content is the one of `If-None-Match`.", "headers": _REQUEST_ID},
    "416": {"description": "The file has no byte of the `Range`.", "headers": _REQUEST_ID},
}
_LIFETIME = {"type": "integer", "minimum": 3600, "maximum": 2_592_000}


def document() -> Json:
    """The whole document; the same for the same code."""
    paths: Json = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = _operation(path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nightshift",
            "version": "1",
            "description": "A Batch API for chat completions: one line in, one line out, in order. "
            "Every answer carries `x-request-id`. Errors have one shape.",
        },
        "servers": [{"url": ".", "description": "Where this document was read, up to and with /v1"}],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas() -> Json:
    """The schemas of all bodies and all responses, by name."""
    bodies = [operation.body for operation in OPERATIONS.values() if operation.body]
    template = REF_TEMPLATE.format(name="{model}")
    _, sent = models_json_schema([(body, "validation") for body in bodies], ref_template=template)
    returned = components(
        {shape for operation in OPERATIONS.values() for shape in operation.answers + operation.refusals} | {Redirect},
        closed=True,
    )
    return dict(sorted((sent["$defs"] | returned).items()))


def _operation(path: str, operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": _parameters(path, operation),
    }
    if is_public(path):
        described["security"] = []
    content = _request_content(operation)
    if content:
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {"200": _answer(operation)} | (_CONTENT if operation.redirects else {})
    errors = operation.errors if is_public(path) else operation.errors | _ERRORS_OF_EVERY_CALL
    for status, description in sorted(errors.items()):
        described["responses"][str(status)] = _error(status, description, operation)
    return described


def _parameters(path: str, operation: Operation) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    fields = operation.query.model_json_schema()["properties"] if operation.query else {}
    optional = [("query", fields), ("header", operation.headers)]
    return in_path + [
        {"name": name, "in": place, "required": False, "schema": schema}
        for place, schemas in optional
        for name, schema in schemas.items()
    ]


def _request_content(operation: Operation) -> Json:
    content: Json = {}
    if operation.body:
        content["application/json"] = {"schema": {"$ref": REF_TEMPLATE.format(name=operation.body.__name__)}}
    if operation.form:
        file_part = operation.form.file_part
        disposition = f'form-data; name="{file_part}"; filename="input.jsonl"'
        file = {
            "contentType": "application/jsonl",
            "headers": {"Content-Disposition": {"schema": {"type": "string"}, "example": disposition}},
        }
        content["multipart/form-data"] = {"schema": _form(operation.form), "encoding": {file_part: file}}
    return content


def _form(form: Form) -> Json:
    """The schema of a multipart form, which spells an object's fields as ``name[field]``."""
    file = {form.file_part: {"type": "string", "format": "binary"}}
    if form.fields is None:
        return {"type": "object", "properties": file, "required": [form.file_part]}
    model = form.fields.model_json_schema()
    nested = {
        "expires_after[anchor]": {"const": "created_at", "type": "string"},
        "expires_after[seconds]": _LIFETIME,
        "ttl_seconds": _LIFETIME,
    }
    simple = {name: schema for name, schema in model["properties"].items() if f"{name}[anchor]" not in nested}
    return {"type": "object", "properties": simple | nested | file, "required": [*model["required"], form.file_part]}


def _answer(operation: Operation) -> Json:
    answer: Json = {"description": operation.summary, "headers": _REQUEST_ID}
    if operation.answers:
        schema = _one_of(operation.answers)
    else:
        schema = {"type": "object" if operation.media_type == "application/json" else "string"}
    if operation.media_type is not None:
        answer["content"] = {operation.media_type: {"schema": schema}}
    if operation.links:
        answer["links"] = {name: _link(link) for name, link in operation.links.items()}
    return answer


def _error(status: int, description: str, operation: Operation) -> Json:
    media: Json = {"schema": _one_of(operation.refusals if status in _REFUSALS else (ErrorEnvelope,))}
    if status in _EXAMPLES:
        media["example"] = {"error": {"type": "invalid_request_error"} | _EXAMPLES[status]}
    retry_after = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
    return {
        "description": description,
        "headers": _REQUEST_ID | (retry_after if status == 429 else {}),
        "content": {"application/json": media},
    }


def _one_of(shapes: tuple[Any, ...]) -> Json:
    references = [reference(shape) for shape in shapes]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _link(link: Link) -> Json:
    value = {link.to: f"$response.body#/{link.field}"}
    return {"operationId": link.operation, "requestBody" if link.in_body else "parameters": value}


def main() -> None:
    for path, content in ((DOCUMENT, document()), (EVENT_SCHEMA, event_schema())):
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
