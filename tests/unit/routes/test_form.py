"""Routes as operators write them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from nightshift.routes import form
from nightshift.routes.route import BatchApi, Realtime, Route, Sku

FLAT: dict[str, Any] = {
    "model": "m",
    "provider": "p",
    "base_url": "https://up.test/v1",
    "upstream_model": "u",
    "sku": {"id": "s"},
}


def parse(**fields: Any) -> Route:
    return form.parse(FLAT | fields)


def test_the_flat_form_is_a_realtime_route() -> None:
    one = parse(batch=True, max_concurrency=7)
    assert (one.mode, one.batch, one.max_concurrency, one.sku) == ("realtime", True, 7, Sku("s"))
    assert not parse(batch=False).batch


def test_the_flat_form_may_have_a_mode() -> None:
    one = parse(batch=True, mode="batch")
    assert (one.mode, one.batch_api) == ("batch", BatchApi())


def test_the_nested_form() -> None:
    one = parse(
        mode="batch",
        rescue_before="2h",
        batch={"max_requests": 10, "max_bytes": "200MB", "max_queued_tokens": 5},
        realtime={
            "max_concurrency": 9,
            "requests_per_minute": 8,
            "tokens_per_minute": 7,
            "timeout_seconds": 900,
            "extra_body": {"service_tier": "flex"},
            "input_per_million": 0.5,
        },
        extra_body={"user": "x"},
    )
    assert one.batch
    assert one.rescue_before_seconds == 7200
    assert one.batch_api == BatchApi(10, 200_000_000, 5)
    assert (one.max_concurrency, one.requests_per_minute, one.tokens_per_minute, one.timeout_seconds) == (9, 8, 7, 900)
    assert one.realtime == Realtime({"service_tier": "flex"}, 0.5)
    assert (one.extra_body, one.realtime_extra_body) == ({"user": "x"}, {"user": "x", "service_tier": "flex"})
    assert msgspec.json.decode(msgspec.json.encode(one), type=Route) == one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rescue_before": "soon", "mode": "batch"}, "not a duration"),
        ({"rescue_before": True, "mode": "batch"}, "not a duration"),
        ({"rescue_before": "2h"}, "mode: batch"),
        ({"rescue_before": "24h", "mode": "batch"}, "24h"),
        ({"batch": {"max_bytes": "much"}}, "not a size"),
        ({"batch": {"max_bytes": 0}}, "max_bytes"),
        ({"batch": {"max_request": 1}}, "max_request"),
        ({"batch": {"endpoint": "chat"}}, "endpoint"),
        ({"batch": {}, "batch_api": {}}, "exclude"),
        ({"realtime": {"max_concurrency": 1}, "max_concurrency": 2}, "twice"),
        ({"realtime": {"extra_body": {"model": "x"}}}, "extra_body"),
        ({"realtime": {"typo": 1}}, "typo"),
        ({"endpoints": ["/v1/images"]}, "Invalid enum value"),
        ({"endpoints": []}, "endpoints"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"mode": "bulk"}, "Invalid enum value"),
    ],
)
def test_a_wrong_form_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        parse(**fields)


@pytest.mark.parametrize("entry", [None, [], "model", 3])
def test_an_entry_that_is_no_mapping_is_refused(entry: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        form.parse(entry)


def test_the_example_file_is_valid() -> None:
    entries = yaml.safe_load((Path(__file__).parents[3] / "docs/routes.example.yaml").read_text())
    routes = [form.parse(entry) for entry in entries]
    assert [(one.provider, one.mode) for one in routes] == [
        ("openai", "batch"),
        ("openai", "realtime"),
        ("azure", "realtime"),
        ("azure", "batch"),
        ("openai", "batch"),
        ("vllm", "realtime"),
    ]
    assert routes[4].endpoints == ("/v1/embeddings",)
    azure = routes[3]
    assert azure.url_of("/files", purpose="batch") == (
        "https://my-resource.openai.azure.com/openai/files?api-version=2024-10-21&purpose=batch"
    )
    assert azure.batch_api.endpoint == "/chat/completions"
