"""Accounts and their API keys, in the table ``Accounts``.

| pk            | sk              | holds                                            |
| ------------- | --------------- | ------------------------------------------------ |
| ``acct_…``    | ``account``     | name, created_at, quotas, webhook                |
| ``acct_…``    | ``key#key_…``   | the key's hash, hint and created_at              |
| ``key#<hash>``| ``key``         | account_id, key_id                               |

A key is stored as its SHA-256 alone: it has 256 random bits, so nothing slower than a hash is needed.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

from nightshift.core import aws, settings
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import new_id

KEY_PREFIX = "sk-ns-"
# How long a key that was found is trusted without looking again: a revoked key is dead after this.
KEY_CACHE_SECONDS = 60
_KEY_CACHE_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Account:
    """An account as an operator sees it."""

    account_id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key as an operator sees it: never the key itself."""

    key_id: str
    account_id: str
    hint: str
    created_at: int


_known: dict[str, tuple[float, str]] = {}


def authenticate(api_key: str) -> str | None:
    """The account that ``api_key`` belongs to; None for an unknown or revoked key."""
    hashed = _hash(api_key)
    now = time.monotonic()
    known = _known.get(hashed)
    if known and now - known[0] < KEY_CACHE_SECONDS:
        return known[1]
    _known.pop(hashed, None)
    found = aws.client("dynamodb").get_item(
        TableName=settings.table("accounts"),
        Key=aws.item({"pk": f"key#{hashed}", "sk": "key"}),
        ConsistentRead=True,  # a key works from the moment it is printed
    )
    if "Item" not in found:
        return None
    account_id: str = aws.plain(found["Item"])["account_id"]
    if len(_known) >= _KEY_CACHE_SIZE:
        _known.clear()
    _known[hashed] = (now, account_id)
    return account_id


def create_account(name: str) -> str:
    """Record a new account and return its id."""
    account_id = new_id("acct")
    aws.client("dynamodb").put_item(
        TableName=settings.table("accounts"),
        Item=aws.item({"pk": account_id, "sk": "account", "name": name, "created_at": int(time.time())}),
    )
    return account_id


def get(account_id: str) -> dict[str, Any]:
    """The account's item.

    Raises:
        NotFoundError: there is no such account.
    """
    found = aws.client("dynamodb").get_item(
        TableName=settings.table("accounts"), Key=aws.item({"pk": account_id, "sk": "account"})
    )
    if "Item" not in found:
        raise NotFoundError(f"There is no account {account_id}.")
    return aws.plain(found["Item"])


def list_accounts() -> list[Account]:
    """Every account, oldest first."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName=settings.table("accounts"),
            FilterExpression="sk = :sk",
            ExpressionAttributeValues=aws.item({":sk": "account"}),
        )
    )
    items = [aws.plain(found) for page in pages for found in page["Items"]]
    accounts = [Account(item["pk"], item["name"], item["created_at"]) for item in items]
    return sorted(accounts, key=lambda account: account.account_id)


def set_quotas(account_id: str, quotas: dict[str, int]) -> None:
    """Give the account limits of its own, in place of those it had."""
    aws.client("dynamodb").update_item(
        TableName=settings.table("accounts"),
        Key=aws.item({"pk": account_id, "sk": "account"}),
        UpdateExpression="SET quotas = :quotas",
        ConditionExpression="attribute_exists(pk)",
        ExpressionAttributeValues=aws.item({":quotas": quotas}),
    )


def find(name_or_id: str) -> str:
    """The id of the account with this id, or the only one with this name.

    Raises:
        NotFoundError: no account, or more than one, goes by it.
    """
    matches = [account.account_id for account in list_accounts() if name_or_id in (account.account_id, account.name)]
    if len(matches) != 1:
        count = "no account" if not matches else f"{len(matches)} accounts"
        raise NotFoundError(f"There is {count} called {name_or_id}.")
    return matches[0]


def create_key(account_id: str) -> tuple[str, Key]:
    """Make a key for the account. The key is returned here and can never be read again."""
    api_key = KEY_PREFIX + secrets.token_urlsafe(32)
    key = Key(new_id("key"), account_id, f"{api_key[:9]}…{api_key[-4:]}", int(time.time()))
    hashed = _hash(api_key)
    table = settings.table("accounts")
    lookup = {"pk": f"key#{hashed}", "sk": "key", "account_id": account_id, "key_id": key.key_id}
    record = {
        "pk": account_id,
        "sk": f"key#{key.key_id}",
        "hash": hashed,
        "hint": key.hint,
        "created_at": key.created_at,
    }
    aws.client("dynamodb").transact_write_items(
        TransactItems=[
            {"Put": {"TableName": table, "Item": aws.item(lookup)}},
            {"Put": {"TableName": table, "Item": aws.item(record)}},
        ]
    )
    return api_key, key


def list_keys(account_id: str) -> list[Key]:
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("accounts"),
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues=aws.item({":pk": account_id, ":sk": "key#"}),
        )
    )
    records = [aws.plain(found) for page in pages for found in page["Items"]]
    return [Key(record["sk"][4:], account_id, record["hint"], record["created_at"]) for record in records]


def revoke_key(account_id: str, key_id: str) -> None:
    """Delete a key; it stops working within ``KEY_CACHE_SECONDS``.

    Raises:
        NotFoundError: the account has no such key.
    """
    table = settings.table("accounts")
    key = aws.item({"pk": account_id, "sk": f"key#{key_id}"})
    found = aws.client("dynamodb").get_item(TableName=table, Key=key)
    if "Item" not in found:
        raise NotFoundError(f"The account {account_id} has no key {key_id}.")
    hashed = aws.plain(found["Item"])["hash"]
    aws.client("dynamodb").transact_write_items(
        TransactItems=[
            {"Delete": {"TableName": table, "Key": aws.item({"pk": f"key#{hashed}", "sk": "key"})}},
            {"Delete": {"TableName": table, "Key": key}},
        ]
    )


def _hash(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
