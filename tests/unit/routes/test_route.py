"""Which route a batch is locked to."""

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.core.errors import InvalidFileError, UnavailableError
from nightshift.routes.endpoint import DEFAULT as CHAT
from nightshift.routes.endpoint import ENDPOINTS, EndpointPath
from nightshift.routes.route import Auth, BatchApi, Route, Sku, choose


def route(**changes: Any) -> Route:
    sku = Sku(id=changes.pop("sku", "sku"), active=changes.pop("active", True))
    given: dict[str, Any] = {
        "model": "m",
        "provider": "p",
        "base_url": "https://up.test/v1",
        "upstream_model": "u",
        "sku": sku,
    }
    return Route(**(given | changes))


routes = st.lists(
    st.builds(
        lambda model, batch, active, priority, weight: route(
            model=model, batch=batch, active=active, priority=priority, weight=weight
        ),
        st.sampled_from(["m", "other"]),
        st.booleans(),
        st.booleans(),
        st.integers(0, 3),
        st.integers(1, 5),
    ),
    max_size=8,
)


@given(routes)
def test_the_best_usable_route_is_chosen(given: list[Route]) -> None:
    capable = [one for one in given if one.model == "m" and one.batch]
    active = [one for one in capable if one.sku.active]
    if not capable:
        with pytest.raises(InvalidFileError) as unsupported:
            choose(given, "m", CHAT)
        assert (unsupported.value.code, unsupported.value.status) == ("batch_model_not_supported", 400)
    elif not active:
        with pytest.raises(UnavailableError) as unavailable:
            choose(given, "m", CHAT)
        assert (unavailable.value.code, unavailable.value.status) == ("batch_routing_unavailable", 503)
    else:
        chosen = choose(given, "m", CHAT)
        assert chosen in active
        assert chosen.priority == min(one.priority for one in active)


def test_ties_are_broken_by_weight() -> None:
    chance = random.Random(1)
    light, heavy = route(provider="light", weight=1), route(provider="heavy", weight=3)
    chosen = Counter(choose([light, heavy], "m", CHAT, chance).provider for _ in range(4_000))
    assert 2.5 < chosen["heavy"] / chosen["light"] < 3.5


def test_an_unknown_models_error_is_printable() -> None:
    with pytest.raises(InvalidFileError) as caught:
        choose([], "\u202e\x1b[31m" * 1_000, CHAT)
    assert caught.value.param == "input_file_id"
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1_000


def test_names_of_models_are_compared_exactly() -> None:
    with pytest.raises(InvalidFileError):
        choose([route(model="M")], "m", CHAT)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ""},
        {"provider": ""},
        {"upstream_model": ""},
        {"base_url": "ftp://up.test"},
        {"base_url": "up.test/v1"},
        {"base_url": "https://"},
        {"base_url": "http:///v1"},
        {"sku": ""},
        {"max_concurrency": 0},
        {"max_concurrency": 10_001},
        {"timeout_seconds": 0},
        {"timeout_seconds": 901},
        {"weight": 0},
    ],
)
def test_a_route_that_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        route(**changes)


def test_a_route_survives_being_stored() -> None:
    one = route(api_key_secret="nightshift/openai", weight=3)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Route) == one


@pytest.mark.parametrize("field", [b"model", b"sku", b"base_url"])
def test_a_stored_route_has_exactly_its_fields(field: bytes) -> None:
    stored = msgspec.json.encode(route())
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(stored.replace(b'"' + field + b'"', b'"typo"', 1), type=Route)


# --- the shape of a request -------------------------------------------------------------------------------------------


def test_a_flat_route_posts_with_a_bearer_token() -> None:
    one = route(base_url="https://u.example/v1/", api_key_secret="nightshift/u")
    assert one.request_url(CHAT) == "https://u.example/v1/chat/completions"
    assert one.credentials == Auth("nightshift/u")
    assert one.credentials.value("k") == "Bearer k"
    assert route().credentials is None


def test_azure_is_a_matter_of_configuration() -> None:
    auth = {"header": "api-key", "scheme": "", "secret": "nightshift/azure"}
    entry = {"base_url": "https://a.example/openai/deployments/d", "query": {"api-version": "2024-10-21"}, "auth": auth}
    one = route(**entry | {"auth": msgspec.convert(auth, Auth)})
    assert one.request_url(CHAT) == "https://a.example/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert one.credentials is not None
    assert (one.credentials.header, one.credentials.value("k")) == ("api-key", "k")
    assert msgspec.json.decode(msgspec.json.encode(one), type=Route) == one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "chat"}, "path"),
        ({"path": "/chat?x=1"}, "path"),
        ({"path": "/chat\r\nX: y"}, "path"),
        ({"headers": {"a b": "c"}}, "headers"),
        ({"headers": {"Host": "other"}}, "headers"),
        ({"headers": {"authorization": "Bearer x"}}, "headers"),
        ({"headers": {"x": "a\r\nb: c"}}, "headers"),
        ({"headers": {"x": "\u00e9"}}, "headers"),
        ({"auth": Auth("s", header="a:b")}, "auth"),
        ({"auth": Auth("s", scheme="a\nb")}, "auth"),
        ({"auth": Auth("s"), "api_key_secret": "s"}, "exclude"),
        ({"extra_body": {"model": "other"}}, "extra_body"),
        ({"extra_body": {"stream": True}}, "extra_body"),
    ],
)
def test_an_unsafe_request_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        route(**fields)


def test_draining_route_takes_no_batch() -> None:
    first, second = route(provider="first", priority=1), route(provider="second", priority=2)
    assert choose([first, second], "m", CHAT, controls={first.id: "draining"}) == second
    with pytest.raises(UnavailableError):
        choose([first], "m", CHAT, controls={first.id: "draining"})


def test_paused_route_takes_a_batch_if_no_other_can() -> None:
    first, second = route(provider="first", priority=1), route(provider="second", priority=2)
    assert choose([first, second], "m", CHAT, controls={first.id: "paused"}) == second
    assert choose([first], "m", CHAT, controls={first.id: "paused"}) == first
    assert choose([first, second], "m", CHAT, controls={first.id: "paused", second.id: "draining"}) == first


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_has_its_path_at_the_provider(endpoint: EndpointPath) -> None:
    one = route(endpoints=tuple(ENDPOINTS))
    assert one.request_url(endpoint) == f"https://up.test{endpoint}"
    assert one.batch_endpoint(endpoint) == endpoint


def test_a_route_of_one_endpoint_may_name_its_paths() -> None:
    named = route(endpoints=("/v1/embeddings",), path="/e", batch_api=BatchApi(endpoint="/embeddings"))
    assert named.request_url("/v1/embeddings") == "https://up.test/v1/e"
    assert named.batch_endpoint("/v1/embeddings") == "/embeddings"


@pytest.mark.parametrize(
    "fields",
    [
        {"endpoints": ()},
        {"endpoints": (CHAT, CHAT)},
        {"endpoints": (CHAT, "/v1/embeddings"), "path": "/e"},
        {"endpoints": (CHAT, "/v1/embeddings"), "batch_api": BatchApi(endpoint="/e")},
        {"extra_body": {"input": "x"}},
        {"extra_body": {"prompt": "x"}},
        {"extra_body": {"background": True}},
    ],
)
def test_a_route_that_would_mix_endpoints_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"endpoint|extra_body"):
        route(**fields)


def test_a_model_is_chosen_for_its_endpoint() -> None:
    chat, both = route(priority=1), route(provider="both", endpoints=("/v1/responses", "/v1/embeddings"))
    assert choose([chat, both], "m", "/v1/embeddings") == both
    assert choose([chat, both], "m", CHAT) == chat
    with pytest.raises(InvalidFileError) as refused:
        choose([chat, both], "m", "/v1/completions", line=3)
    assert refused.value.code == "batch_model_not_supported"
    assert refused.value.message == (
        "Line 3, body.model: The model 'm' is not supported in a batch of /v1/completions, but in batches of "
        "/v1/chat/completions and /v1/responses and /v1/embeddings. GET /v1/models lists the supported models."
    )
