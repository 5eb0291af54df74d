"""What a batch's tokens cost."""

from typing import Any

import msgspec
import pytest
from nightshift.batches.cost import Cost, cost_of
from nightshift.batches.record import Batch, BatchUsage, Planned, RequestCounts
from nightshift.results.usage import Usage
from nightshift.routes.route import Realtime, Route, Sku


def route(**fields: Any) -> Route:
    given: dict[str, Any] = {
        "model": "m",
        "provider": "p",
        "base_url": "https://up.test/v1",
        "upstream_model": "u",
        "sku": Sku("s", True, 1.0, 10.0),
    }
    return Route(**given | fields)


def usage(tokens_in: int, tokens_out: int) -> BatchUsage:
    whole = Usage(input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out)
    return msgspec.convert(whole.as_dict(), BatchUsage)


def batch(plan_route: Route, **fields: Any) -> Batch:
    return Batch(
        account_id="acct_1",
        id="batch_1",
        status="completed",
        input_file_id="file_1",
        endpoint="/v1/chat/completions",
        completion_window="24h",
        created_at=1,
        expires_at=2,
        plan=Planned("m", 10, 1, plan_route),
        request_counts=RequestCounts(10, 9, 1),
        usage=usage(2_000_000, 300_000),
        **fields,
    )


def test_a_realtime_batch_costs_its_skus_price() -> None:
    cost = cost_of(batch(route()))
    assert cost.realtime == Cost(10, 2_000_000, 300_000, pytest.approx(5.0))  # type: ignore[arg-type]  # pytest.approx has no type
    assert cost.batch == Cost(0, 0, 0, 0.0)
    assert cost.dollars == pytest.approx(5.0)


def test_each_way_has_its_price() -> None:
    rescue = route(sku=Sku("r", True, 2.0, 20.0))
    ended = batch(route(mode="batch"), rescue_route=rescue, batch_lines=6, batch_usage=usage(1_000_000, 100_000))
    cost = cost_of(ended)
    assert cost.batch == Cost(6, 1_000_000, 100_000, pytest.approx(2.0))  # type: ignore[arg-type]  # pytest.approx has no type
    assert cost.realtime == Cost(4, 1_000_000, 200_000, pytest.approx(6.0))  # type: ignore[arg-type]  # pytest.approx has no type
    assert cost.dollars == pytest.approx(8.0)


def test_the_same_providers_realtime_price_is_its_own() -> None:
    own = route(mode="batch", realtime=Realtime(input_per_million=4.0, output_per_million=40.0))
    ended = batch(own, rescue_route=own, batch_lines=6, batch_usage=usage(1_000_000, 100_000))
    assert cost_of(ended).realtime.dollars == pytest.approx(12.0)
    unknown = route(mode="batch")
    ended = batch(unknown, rescue_route=unknown, batch_lines=6, batch_usage=usage(1_000_000, 100_000))
    assert cost_of(ended).realtime.dollars is None
    assert cost_of(ended).dollars is None


def test_without_prices_nothing_is_known_but_the_tokens() -> None:
    cost = cost_of(batch(route(sku=Sku("s"))))
    assert cost.dollars is None
    assert cost.realtime.input_tokens == 2_000_000
