"""Accounts and their API keys, in the table ``Accounts``.

| pk            | sk              | holds                                            |
| ------------- | --------------- | ------------------------------------------------ |
| ``acct_…``    | ``account``     | name, created_at, quotas, weight, disabled_at    |
| ``acct_…``    | ``key#key_…``   | the key's hash, hint, created_at and expires_at  |
| ``key#<hash>``| ``key``         | account_id, key_id, expires_at                   |

``webhooks/receivers.py`` keeps an account's webhook in the same table.

A key is stored as its SHA-256 alone. A slow hash would add nothing, because a key has 256 random bits.
"""

import hashlib
import math
import re
import secrets
import time
from collections.abc import Mapping

from nightshift.accounts.record import Account, Key
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import new_id
from nightshift.core.table import Item, Table, transact

KEY_PREFIX = "sk-ns-"
# The prefix, and 256 random bits as base64url. What is no such key needs no look-up.
_KEY = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]{43}", re.ASCII)
# A key that was found stays valid for so long without another look-up: a revoked key stops working within this time.
KEY_CACHE_SECONDS = 60
_KEY_CACHE_SIZE = 1_000

_ACCOUNTS = Table("accounts")
# When each key was looked up, its account, and when it expires, by the key's hash.
_known: dict[str, tuple[float, str, float]] = {}


# --- accounts -------------------------------------------------------------------------------------------------------


def create_account(name: str) -> str:
    """Record a new account and return its id."""
    account_id = new_id("acct")
    _ACCOUNTS.put({"pk": account_id, "sk": "account", "name": name, "created_at": int(time.time())})
    return account_id


def get(account_id: str) -> Account:
    """The account with this id.

    Raises:
        NotFoundError: there is no such account.
    """
    found = _ACCOUNTS.get(account_id, "account")
    if found is None:
        raise _account_not_found(account_id)
    return _account(found)


def exists(account_id: str) -> bool:
    """Whether there is such an account, disabled or not."""
    return _ACCOUNTS.get(account_id, "account") is not None


def list_accounts() -> list[Account]:
    """Every account, oldest first."""
    found = _ACCOUNTS.scan(filter="sk = :account", account="account")
    return sorted(map(_account, found), key=lambda account: account.id)


def find(name_or_id: str) -> Account:
    """The account with this id, or the only one with this name.

    Raises:
        NotFoundError: no account matches, or more than one does.
    """
    matches = [account for account in list_accounts() if name_or_id in (account.id, account.name)]
    if not matches:
        raise _account_not_found(name_or_id)
    if len(matches) > 1:
        raise NotFoundError(f"{len(matches)} accounts are named {name_or_id}. Give the id of one of them.")
    return matches[0]


def set_quotas(account_id: str, quotas: Mapping[str, float]) -> None:
    """Set the account's own quotas, in place of those that it had.

    Raises:
        NotFoundError: there is no such account.
    """
    if _ACCOUNTS.update(account_id, "account", set={"quotas": dict(quotas)}, condition="attribute_exists(pk)") is None:
        raise _account_not_found(account_id)


def set_weight(account_id: str, weight: int) -> None:
    """Set the account's weight. Workers read it when they start.

    Raises:
        NotFoundError: there is no such account.
    """
    if _ACCOUNTS.update(account_id, "account", set={"weight": weight}, condition="attribute_exists(pk)") is None:
        raise _account_not_found(account_id)


def forget(account_id: str) -> int:
    """Delete the account with its keys and its webhook. Returns how many items that were.

    The account itself goes last, so that a call that was killed can be repeated.
    """
    found = list(_ACCOUNTS.query("pk = :account_id", account_id=account_id))
    lookups = [tuple(_lookup(item["hash"]).values()) for item in found if "hash" in item]
    others = [(account_id, item["sk"]) for item in found if item["sk"] != "account"]
    return _ACCOUNTS.delete_all([*lookups, *others]) + _ACCOUNTS.delete_all([(account_id, "account")])


def _account(item: Item) -> Account:
    return Account(
        id=item["pk"],
        name=item["name"],
        created_at=item["created_at"],
        own_quotas=item.get("quotas") or {},
        weight=item.get("weight", 1),
        disabled_at=item.get("disabled_at"),
    )


def _account_not_found(name_or_id: str) -> NotFoundError:
    return NotFoundError(f"Account not found: {name_or_id}.")


def disable(account_id: str) -> None:
    """Let none of the account's keys work from ``KEY_CACHE_SECONDS`` on, until ``enable``.

    Raises:
        NotFoundError: there is no such account.
    """
    disabled = {"disabled_at": int(time.time())}
    if _ACCOUNTS.update(account_id, "account", set=disabled, condition="attribute_exists(pk)") is None:
        raise _account_not_found(account_id)


def enable(account_id: str) -> None:
    """Let the account's keys work again.

    Raises:
        NotFoundError: there is no such account.
    """
    if _ACCOUNTS.update(account_id, "account", remove=["disabled_at"], condition="attribute_exists(pk)") is None:
        raise _account_not_found(account_id)


# --- keys -----------------------------------------------------------------------------------------------------------


def authenticate(api_key: str) -> str | None:
    """The id of the account that ``api_key`` belongs to; None for a key that is unknown, revoked or expired, or of a
    disabled account."""
    if _KEY.fullmatch(api_key) is None:
        return None
    hashed = _hash(api_key)
    now = time.monotonic()
    known = _known.get(hashed)
    if known and now - known[0] < KEY_CACHE_SECONDS:
        return known[1] if time.time() < known[2] else None
    _known.pop(hashed, None)
    # Consistent, because a key works from the moment it is printed.
    found = _ACCOUNTS.get(f"key#{hashed}", "key", consistent=True)
    if found is None:
        return None
    account_id: str = found["account_id"]
    expires_at = found.get("expires_at") or math.inf
    account = _ACCOUNTS.get(account_id, "account", consistent=True)
    if account is None or account.get("disabled_at") or time.time() >= expires_at:
        return None
    if len(_known) >= _KEY_CACHE_SIZE:
        _known.clear()
    _known[hashed] = (now, account_id, expires_at)
    return account_id


def create_key(account_id: str, expires_at: int | None = None) -> tuple[str, Key]:
    """Make a key for the account. Only this call returns the key itself; it cannot be read again."""
    api_key = KEY_PREFIX + secrets.token_urlsafe(32)
    hashed = _hash(api_key)
    key = Key(
        id=new_id("key"),
        account_id=account_id,
        hint=f"{api_key[:9]}…{api_key[-4:]}",
        created_at=int(time.time()),
        expires_at=expires_at,
    )
    lookup = _lookup(hashed) | {"account_id": account_id, "key_id": key.id, "expires_at": expires_at}
    times = {"created_at": key.created_at, "expires_at": expires_at}
    record = _record(account_id, key.id) | {"hash": hashed, "hint": key.hint} | times
    transact(("Put", _ACCOUNTS, lookup), ("Put", _ACCOUNTS, record))
    return api_key, key


def list_keys(account_id: str) -> list[Key]:
    """The account's keys, oldest first."""
    found = _ACCOUNTS.query("pk = :account_id AND begins_with(sk, :prefix)", account_id=account_id, prefix="key#")
    return [_key(item) for item in found]


def expire_key(account_id: str, key_id: str, expires_at: int) -> None:
    """Let a key end at that time, or at its own if that is sooner. Who has looked it up notices within
    ``KEY_CACHE_SECONDS``.

    Raises:
        NotFoundError: the account has no such key.
    """
    found = _find_key(account_id, key_id)
    at = min(expires_at, found.get("expires_at") or expires_at)
    _ACCOUNTS.update(*_lookup(found["hash"]).values(), set={"expires_at": at}, condition="attribute_exists(pk)")
    _ACCOUNTS.update(*_record(account_id, key_id).values(), set={"expires_at": at}, condition="attribute_exists(pk)")


def revoke_key(account_id: str, key_id: str) -> None:
    """Delete a key; it stops working within ``KEY_CACHE_SECONDS``.

    Raises:
        NotFoundError: the account has no such key.
    """
    found = _find_key(account_id, key_id)
    transact(("Delete", _ACCOUNTS, _lookup(found["hash"])), ("Delete", _ACCOUNTS, _record(account_id, key_id)))


def _find_key(account_id: str, key_id: str) -> Item:
    found = _ACCOUNTS.get(account_id, f"key#{key_id}")
    if found is None:
        raise NotFoundError(f"Key not found: the account {account_id} has no key {key_id}.")
    return found


def _hash(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()


def _lookup(hashed: str) -> Item:
    """The key of the item that leads from an API key to its account."""
    return {"pk": f"key#{hashed}", "sk": "key"}


def _record(account_id: str, key_id: str) -> Item:
    """The key of the item that lists an API key under its account."""
    return {"pk": account_id, "sk": f"key#{key_id}"}


def _key(item: Item) -> Key:
    return Key(
        id=item["sk"].removeprefix("key#"),
        account_id=item["pk"],
        hint=item["hint"],
        created_at=item["created_at"],
        expires_at=item.get("expires_at"),
    )
