"""An account's receiver and its signing secrets, in the table ``Accounts``: pk the account, sk ``webhook``.

| attribute                          | holds                                                    |
| ---------------------------------- | -------------------------------------------------------- |
| ``url``                            | the default receiver                                     |
| ``secret``                         | the signing secret                                       |
| ``shown``                          | whether the API has returned the secret                  |
| ``previous_secret``, ``…_until``   | the secret before a rotation, and when it stops to sign  |
"""

import time

from nightshift.core.table import Table
from nightshift.webhooks.message import new_secret
from nightshift.webhooks.record import Receiver

# After a rotation the old secret signs beside the new one for so long.
OVERLAP_SECONDS = 24 * 3600

_ACCOUNTS = Table("accounts")


def get(account_id: str) -> Receiver:
    """The account's receiver; without a URL and secrets where it never had any."""
    found = _ACCOUNTS.get(account_id, "webhook", consistent=True) or {}
    signing_secrets = [found["secret"]] if "secret" in found else []
    if found.get("previous_until", 0) > time.time():
        signing_secrets.append(found["previous_secret"])
    return Receiver(found.get("url"), tuple(signing_secrets))


def with_secret(account_id: str) -> Receiver:
    """The account's receiver with a signing secret, which is made where the account has none."""
    _ACCOUNTS.update(account_id, "webhook", set={"secret": new_secret()}, condition="attribute_not_exists(secret)")
    return get(account_id)


def set_url(account_id: str, url: str) -> str | None:
    """Set the account's default receiver. Returns the signing secret where no response has shown it before."""
    _ACCOUNTS.update(account_id, "webhook", set={"url": url})
    receiver = with_secret(account_id)
    first = _ACCOUNTS.update(account_id, "webhook", set={"shown": True}, condition="attribute_not_exists(shown)")
    return receiver.signing_secrets[0] if first else None


def delete_url(account_id: str) -> None:
    """Delete the default receiver. The secret stays, because it signs the webhooks of a batch's ``callback_url``."""
    _ACCOUNTS.update(account_id, "webhook", remove=("url",))


def rotate_secret(account_id: str) -> str:
    """Make and return a new signing secret. The old one signs beside it for ``OVERLAP_SECONDS``."""
    secret = new_secret()
    old = get(account_id).signing_secrets[:1]
    previous = {"previous_secret": old[0], "previous_until": int(time.time()) + OVERLAP_SECONDS} if old else {}
    _ACCOUNTS.update(account_id, "webhook", set={"secret": secret, "shown": True, **previous})
    return secret
