"""Accounts and API keys as operators see them."""

import msgspec

from nightshift.accounts.quotas import Quotas


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account. ``own_quotas`` holds those that an operator set for this account.

    ``weight`` is its part of a route that accounts share: 2 gets twice as much as 1.
    """

    id: str
    name: str
    created_at: int
    own_quotas: dict[str, float] = {}
    weight: int = 1
    disabled_at: int | None = None

    @property
    def quotas(self) -> Quotas:
        """The account's own quotas, and the default for every other one."""
        return msgspec.convert(self.own_quotas, Quotas)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret; ``hint`` shows the first and the last characters of it."""

    id: str
    account_id: str
    hint: str
    created_at: int
    expires_at: int | None = None
