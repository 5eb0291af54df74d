"""A byte budget never reserves more than its limit, and serves tasks in turn."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st
from nightshift.upstream.byte_budget import ByteBudget


@given(limit=st.integers(1, 20), sizes=st.lists(st.integers(0, 30), max_size=20), seed=st.integers(0, 99))
def test_tasks_are_served_in_turn(limit: int, sizes: list[int], seed: int) -> None:
    budget, chance = ByteBudget(limit), random.Random(seed)
    entered: list[int] = []
    inside: list[int] = []

    async def visit(number: int) -> None:
        size = sizes[number]
        await budget.reserve(size)
        entered.append(number)
        inside.append(size)
        assert budget.reserved == sum(inside)
        assert budget.reserved <= limit or budget.reserved == size, "over the limit, and not alone"
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        inside.remove(size)
        budget.release(size)

    async def visits() -> None:
        await asyncio.gather(*(visit(number) for number in range(len(sizes))))

    asyncio.run(visits())
    assert entered == list(range(len(sizes)))
    assert budget.reserved == 0


def test_a_cancelled_wait_holds_up_no_other() -> None:
    async def run() -> None:
        budget = ByteBudget(10)
        await budget.reserve(10)
        waiting = [asyncio.create_task(budget.reserve(5)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        budget.release(10)
        await waiting[1]
        assert budget.reserved == 5

    asyncio.run(run())


def test_charged_bytes_fill_it() -> None:
    budget = ByteBudget(10)
    budget.charge(9)
    assert not budget.full
    budget.charge(9)
    assert budget.full
    budget.discharge(9)
    assert not budget.full


def test_reserved_bytes_do_not_fill_it() -> None:
    async def run() -> None:
        budget = ByteBudget(10)
        await budget.reserve(10)
        assert not budget.full
        budget.charge(1)
        waiting = asyncio.create_task(budget.reserve(10))
        budget.release(10)
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.discharge(1)
        await waiting

    asyncio.run(run())
