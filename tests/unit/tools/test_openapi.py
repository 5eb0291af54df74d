"""The OpenAPI document is that of the code."""

import json

from functions.api.app import app as api
from functions.create_batch.app import app as create_batch
from tests.unit.test_template import app_routes
from tools.openapi import DOCUMENT, OPERATIONS, document


def test_the_committed_document_is_what_the_code_says() -> None:
    assert json.loads(DOCUMENT.read_text()) == document(), "run `make openapi`"


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(method.upper(), path.replace("{model}", "{model+}")) for method, path in OPERATIONS}
    assert described == app_routes(api) | app_routes(create_batch)
