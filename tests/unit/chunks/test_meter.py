"""Workers of one account spend no more than its limit, and what is in flight when it is reached."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.spend import DOLLAR, Spend, left
from nightshift.chunks.meter import Meter
from nightshift.results.usage import Usage
from nightshift.upstream.answer import Answer

from tests.unit.chunks.fakes import Store, Upstream, run

CENT = DOLLAR // 100


@dataclass
class Account:
    """An account's sums in memory, and the charges of its chunks."""

    quotas: Quotas
    spent: int = 0
    charged: dict[int, int] = field(default_factory=dict)
    before_charge: Callable[[], None] = lambda: None


@dataclass
class Charges:
    """See ``meter.Charges``: the charges of one chunk."""

    account: Account
    chunk: int = 0

    def quotas(self) -> Quotas:
        return self.account.quotas

    def spent(self) -> Spend:
        return Spend(self.account.spent, self.account.spent)

    def charged(self) -> int:
        return self.account.charged.get(self.chunk, 0)

    def charge(self, before: int, after: int, quotas: Quotas | None = None) -> bool:
        self.account.before_charge()
        rest = left(quotas, self.spent()) if quotas else None
        if self.charged() != before or (rest is not None and after - before > rest):
            return False
        self.account.charged[self.chunk] = after
        self.account.spent += after - before
        return True


@dataclass
class Counted:
    usage: Usage = field(default_factory=Usage)
    batch_usage: Usage = field(default_factory=Usage)


def price(usage: Usage, batch_usage: Usage) -> int:
    """A cent for a token, and half a cent for one of a provider's batch API."""
    return usage.input_tokens * CENT - batch_usage.input_tokens * CENT // 2


def meter(account: Account, chunk: int = 0) -> tuple[Meter, Counted]:
    counted = Counted()
    made = Meter(Charges(account, chunk), price)
    made.follow(counted)
    return made, counted


steps = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["send", "send", "send", "answer", "tick", "crash"])))


@given(steps, st.integers(0, 40), st.integers(1, 9))
def test_all_workers_together_keep_the_limit(script: list[tuple[int, str]], limit: int, tokens: int) -> None:
    account = Account(Quotas(dollars_a_day=limit / 100))
    workers = [meter(account, chunk) for chunk in range(4)]
    in_flight = [0] * 4
    late = 0  # what was in flight when its worker's portion ended
    for worker, step in script:
        own, counted = workers[worker]
        if step == "send" and own.allows():
            in_flight[worker] += 1
            assert cost_of(workers) < (limit + late + 3 * tokens) * CENT
        elif step == "answer" and in_flight[worker]:
            in_flight[worker] -= 1
            late += 0 if own.allows() else tokens
            counted.usage.input_tokens += tokens
        elif step == "tick":
            asyncio.run(own.renew())
        elif step == "crash":  # the next run knows what was stored, and what was in flight is lost
            in_flight[worker] = 0
            workers[worker] = (Meter(Charges(account, worker), price), counted)
            workers[worker][0].follow(counted)
    for own, _ in workers:
        own.settle()
    assert account.spent == cost_of(workers)


def cost_of(workers: list[tuple[Meter, Counted]]) -> int:
    return sum(price(counted.usage, counted.batch_usage) for _, counted in workers)


def test_a_portion_grows_with_what_is_spent_and_is_given_back() -> None:
    account = Account(Quotas(dollars_a_month=100))
    own, counted = meter(account)
    assert not own.allows()
    asyncio.run(own.renew())
    assert account.spent == CENT  # nothing is known yet
    counted.usage.input_tokens = 50
    asyncio.run(own.renew())
    assert account.spent == 150 * CENT
    own.settle()
    assert account.spent == 50 * CENT


def test_a_limit_that_is_raised_is_noticed_at_the_next_tick() -> None:
    account = Account(Quotas(dollars_a_day=0.02))
    own, counted = meter(account)
    asyncio.run(own.renew())
    counted.usage.input_tokens = 2
    asyncio.run(own.renew())
    assert own.spent_up
    assert not own.may_begin()
    assert not own.allows()
    account.quotas = Quotas(dollars_a_day=1)
    asyncio.run(own.renew())
    assert own.allows()
    account.quotas = Quotas()
    account.spent = 10 * DOLLAR
    asyncio.run(own.renew())
    assert own.allows()  # without a limit
    assert own.may_begin()


def test_what_fails_is_charged_later(caplog: pytest.LogCaptureFixture) -> None:
    account = Account(Quotas(dollars_a_day=1))
    own, counted = meter(account)

    def refuse() -> None:
        raise OSError("no table")

    asyncio.run(own.renew())
    counted.usage.input_tokens = 1
    account.before_charge = refuse
    asyncio.run(own.renew())
    own.settle()
    assert "account not charged" in caplog.text
    assert account.spent == CENT
    account.before_charge = lambda: None
    counted.usage.input_tokens = 7
    own.settle()
    assert account.spent == 7 * CENT


def answer(number: int, tries: int) -> Answer:
    return Answer(200, b'{"object":"chat.completion","model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}')


def test_a_run_stops_at_the_limit_and_goes_on_when_it_is_raised() -> None:
    store, upstream, account = Store(100, 10), Upstream(answer, seconds=0.001), Account(Quotas(dollars_a_day=0.4))
    first = Meter(Charges(account), price)
    result = run(store, upstream, concurrency=4, meter=first)
    first.settle()  # as the slice does
    assert result.state in ("park", "wait")  # "wait" just before the next day
    sent = len(upstream.sends)
    assert 40 <= sent <= 43, "the limit, and what was in flight"
    assert account.spent == sent * CENT
    account.quotas = Quotas(dollars_a_day=10)
    last = Meter(Charges(account), price)
    assert run(store, upstream, concurrency=4, meter=last).state == "done"
    last.settle()
    store.assert_each_line_once_and_in_order()
    assert len(upstream.sends) == 100
    assert account.spent == 100 * CENT
