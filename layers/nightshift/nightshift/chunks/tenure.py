"""A worker's place at its route as its run uses it: what it may have in flight at this moment."""

import asyncio
import time
from collections.abc import Callable

from nightshift.chunks.permit import Permit
from nightshift.chunks.place import Place
from nightshift.core.log import logger
from nightshift.routes import pauses
from nightshift.routes.level import Level


class Tenure:
    """Holds the ``permit`` that ``place`` gave last. ``answered_at`` is when the run got its last good answer.

    The tenure of a ``scout`` is over as soon as the route's workers know of such an answer.
    """

    def __init__(
        self, place: Place, permit: Permit, *, scout: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._place = place
        self._scout = scout
        self._clock = clock
        self.permit = permit
        self.answered_at = 0.0

    @property
    def ceiling(self) -> int:
        """Requests that may be in flight: none once the permit could not be renewed in time."""
        return self.permit.ceiling if self._clock() < self.permit.until else 0

    @property
    def pause(self) -> int:
        """Seconds to wait while the ceiling is 0."""
        return max(1, self.permit.pause or pauses.SOON)

    async def renew(self, wanted: int, in_use: int, level: Level, wanted_soon: int | None = None) -> None:
        """Ask for a new permit, and tell the ``level`` that was learned. If that fails, the old one holds on."""
        answered = self.answered_at
        try:
            take = self._place.take
            self.permit = await asyncio.to_thread(take, wanted, in_use, self.answered_at, level, wanted_soon)
        except Exception:
            logger.exception("lease not renewed")
            return
        if self._scout and answered:
            self.permit = Permit(0)
