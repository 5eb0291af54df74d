"""A room never holds more than its limit of what was asked for, and lets everybody in, in turn."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st
from nightshift.upstream.byte_budget import Room


@given(limit=st.integers(1, 20), sizes=st.lists(st.integers(0, 30), max_size=20), seed=st.integers(0, 99))
def test_everybody_gets_room_in_turn_and_it_is_never_overfull(limit: int, sizes: list[int], seed: int) -> None:
    room, chance = Room(limit), random.Random(seed)
    entered: list[int] = []
    inside: list[int] = []

    async def visit(number: int) -> None:
        size = sizes[number]
        await room.take(size)
        entered.append(number)
        inside.append(size)
        assert room.taken == sum(inside)
        assert room.taken <= limit or room.taken == size, "over the limit, and not alone"
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        inside.remove(size)
        room.give(size)

    async def visits() -> None:
        await asyncio.gather(*(visit(number) for number in range(len(sizes))))

    asyncio.run(visits())
    assert entered == list(range(len(sizes)))
    assert room.taken == 0


def test_one_who_stops_waiting_holds_nobody_up() -> None:
    async def run() -> None:
        room = Room(10)
        await room.take(10)
        waiting = [asyncio.create_task(room.take(5)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        room.give(10)
        await waiting[1]
        assert room.taken == 5

    asyncio.run(run())


def test_what_is_there_already_fills_it_over_the_limit() -> None:
    room = Room(10)
    room.fill(9)
    assert not room.full
    room.fill(9)
    assert room.full
    room.empty(9)
    assert not room.full


def test_what_is_waited_for_is_not_there_yet() -> None:
    async def run() -> None:
        room = Room(10)
        await room.take(10)
        assert not room.full
        room.fill(1)
        waiting = asyncio.create_task(room.take(10))
        room.give(10)
        await asyncio.sleep(0)
        assert not waiting.done()
        room.empty(1)
        await waiting

    asyncio.run(run())
