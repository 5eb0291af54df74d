"""A bound on the bytes of answers that a worker holds in memory."""

import asyncio


class ByteBudget:
    """``limit`` bytes that several tasks share, first come, first served.

    Bytes are *reserved* while an answer arrives, and *charged* from when its line is finished until it is stored.

    Example:
        await budget.reserve(1000)
        ...
        budget.release(1000)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self.charged = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether finished answers that are not stored fill the budget. Reserved bytes do not count."""
        return self.charged >= self.limit

    async def reserve(self, size: int) -> None:
        """Reserve ``size`` bytes as soon as they fit. A size above the limit fits when the budget is empty."""
        async with self._turn:
            while (used := self.reserved + self.charged) and used + size > self.limit:
                self._freed.clear()
                await self._freed.wait()
            self.reserved += size

    def release(self, size: int) -> None:
        """Return ``size`` reserved bytes."""
        self.reserved -= size
        self._freed.set()

    def charge(self, size: int) -> None:
        """Count ``size`` bytes of a finished answer, even above the limit, because they are in memory already."""
        self.charged += size

    def discharge(self, size: int) -> None:
        """Stop counting ``size`` bytes, because they are stored."""
        self.charged -= size
        self._freed.set()
