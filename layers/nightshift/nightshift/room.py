"""How much of a worker's memory answers may take before they are kept."""

import asyncio


class Room:
    """``limit`` bytes that several tasks share. Who needs more than there is waits, in turn.

    Example:
        await room.take(1000)
        ...
        room.give(1000)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.taken >= self.limit

    async def take(self, size: int) -> None:
        """Take ``size`` bytes when they are there, or when all is: nothing is too big for an empty room."""
        async with self._turn:
            while self.taken and self.taken + size > self.limit:
                self._given.clear()
                await self._given.wait()
            self.taken += size

    def fill(self, size: int) -> None:
        """Take ``size`` bytes that are there already, over the limit if need be."""
        self.taken += size

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self.taken -= size
        self._given.set()
