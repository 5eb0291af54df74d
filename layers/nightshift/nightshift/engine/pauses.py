"""How long to wait before something that failed because of us is tried again."""

import random

# Nor is a batch woken from a wait that is not longer.
SHORTEST = 20
LONGEST = 600


def after_failures(count: int, rng: random.Random | None = None) -> int:
    """Seconds to wait after ``count`` failures in a row: 20, doubling to ten minutes, and up to half of it less."""
    seconds: int = min(LONGEST, SHORTEST << min(count - 1, 10))
    return round(seconds * (rng or random).uniform(0.5, 1))
