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
        self.filled = 0
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether what is there fills it. What was taken for something that comes slowly does not count."""
        return self.filled >= self.limit

    async def take(self, size: int) -> None:
        """Take ``size`` bytes when they are there, or when all is: nothing is too big for an empty room."""
        async with self._turn:
            while (there := self.taken + self.filled) and there + size > self.limit:
                self._given.clear()
                await self._given.wait()
            self.taken += size

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self.taken -= size
        self._given.set()

    def fill(self, size: int) -> None:
        """Put ``size`` bytes there, over the limit if need be."""
        self.filled += size

    def empty(self, size: int) -> None:
        """Take ``size`` bytes away again."""
        self.filled -= size
        self._given.set()
