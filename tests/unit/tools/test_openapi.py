"""The committed OpenAPI document matches the code."""

import json

from functions.api.app import app as api
from functions.create_batch.app import app as create_batch
from tests.unit.test_template import app_routes
from tools.openapi import DOCUMENT, document
from tools.operations import OPERATIONS


def test_the_document_is_up_to_date() -> None:
    assert json.loads(DOCUMENT.read_text()) == document(), "run `make openapi`"


def test_the_document_has_exactly_the_routes() -> None:
    described = {(method.upper(), path.replace("{model}", "{model+}")) for method, path in OPERATIONS}
    assert described == app_routes(api) | app_routes(create_batch)
