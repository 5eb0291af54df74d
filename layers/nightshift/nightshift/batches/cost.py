"""What a batch's tokens cost at its routes' prices, by the way that its lines went. In dollars."""

from msgspec import Struct

from nightshift.batches.record import Batch, BatchUsage, Outcome, Planned

_MILLION = 1_000_000
# A dollar for a million tokens is so many nano-dollars for one.
_NANO_PER_MILLIONTH = 1_000


class Cost(Struct, frozen=True):
    """Lines, tokens and dollars of one way to the upstream; ``dollars`` is None where a price is not known."""

    lines: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


class BatchCost(Struct, frozen=True):
    """The lines that the provider's batch API has answered, and those that single requests have."""

    batch: Cost
    realtime: Cost

    @property
    def dollars(self) -> float | None:
        """The sum; None where a price of tokens that were used is not known."""
        parts = [cost.dollars for cost in (self.batch, self.realtime)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def cost_of(batch: Batch) -> BatchCost:
    """The cost of an ended batch; without lines or usage it is nothing."""
    counts, usage, plan = batch.request_counts, batch.usage, batch.plan
    lines = counts.completed + counts.failed if counts else 0
    by_batch = _tokens(batch.batch_usage)
    whole = _tokens(usage)
    rest = (whole[0] - by_batch[0], whole[1] - by_batch[1])
    return BatchCost(
        _cost(batch.batch_lines, by_batch, _batch_prices(plan)),
        _cost(lines - batch.batch_lines, rest, _realtime_prices(batch, plan)),
    )


def nano_dollars(batch: Batch, tokens: tuple[int, int], by_batch: tuple[int, int]) -> int:
    """What input and output tokens cost, of which the provider's batch API has used ``by_batch``.

    Tokens whose price is not known cost nothing here.
    """
    rest = (tokens[0] - by_batch[0], tokens[1] - by_batch[1])
    ways = ((by_batch, _batch_prices(batch.plan)), (rest, _realtime_prices(batch, batch.plan)))
    return sum(
        round(count * price * _NANO_PER_MILLIONTH)
        for counts, prices in ways
        for count, price in zip(counts, prices, strict=True)
        if price is not None
    )


def total_nano_dollars(batch: Batch, outcome: Outcome) -> int:
    """What the batch costs that ends so."""
    return nano_dollars(batch, _tokens(outcome.usage), _tokens(outcome.batch_usage))


def _tokens(usage: BatchUsage | None) -> tuple[int, int]:
    return (usage.input_tokens, usage.output_tokens) if usage else (0, 0)


def _batch_prices(plan: Planned | None) -> tuple[float | None, float | None]:
    return (plan.route.sku.input_per_million, plan.route.sku.output_per_million) if plan else (None, None)


def _realtime_prices(batch: Batch, plan: Planned | None) -> tuple[float | None, float | None]:
    """The prices of single requests: the route's own for them, or those of its SKU if that is for single requests."""
    route = batch.rescue_route or (plan.route if plan else None)
    if route is None:
        return None, None
    own = (route.realtime.input_per_million, route.realtime.output_per_million)
    if route.mode == "batch":
        return own
    return own[0] if own[0] is not None else route.sku.input_per_million, (
        own[1] if own[1] is not None else route.sku.output_per_million
    )


def _cost(lines: int, tokens: tuple[int, int], prices: tuple[float | None, float | None]) -> Cost:
    dollars: float | None = 0.0
    for count, price in zip(tokens, prices, strict=True):
        if count and price is None:
            dollars = None
        elif dollars is not None and price is not None:
            dollars += count * price / _MILLION
    return Cost(lines, *tokens, dollars)
