"""An account of the doctor's own: its calls of the API, its batches, and the routes that only they use."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from nightshift_cli.admin.purge import forget
from nightshift_cli.admin.stack import Deployment

if TYPE_CHECKING:
    import httpx
    from nightshift.routes.route import Route

_POLL_SECONDS = 1.0
# How often a call is tried that the API or the network refuses for the moment, a second apart.
_TRIES = 5
_REFUSED_FOR_THE_MOMENT = frozenset({429, 500, 502, 503, 504})
# How long a cancelled trial may take to end.
_END_SECONDS = 300
_Found = TypeVar("_Found")


class UnexpectedAnswerError(Exception):
    """The API answered with another status than it should."""


class Tenant:
    """An account for the checks that need a key. At its end everything of it is deleted."""

    def __init__(self, stack: Deployment, http: "httpx.Client") -> None:
        self.base_url = stack.base_url
        self.http = http
        self._batch_ids: list[str] = []

    def __enter__(self) -> "Tenant":
        from nightshift.accounts import store as accounts

        self.account_id = accounts.create_account(f"doctor-{secrets.token_hex(4)}")
        key, _ = accounts.create_key(self.account_id)
        self.headers = {"Authorization": f"Bearer {key}"}
        return self

    def __exit__(self, *_: object) -> None:
        if self._end_batches(0):
            forget(self.account_id)
        else:
            typer.echo(f"A trial goes on. Later: nightshift admin accounts purge {self.account_id}", err=True)

    def _end_batches(self, seconds: float) -> bool:
        """Cancel the account's batches and wait until they have ended; False if some have not."""
        from nightshift.batches.cancel import cancel
        from nightshift.batches.status import TERMINAL

        def ended() -> bool | None:
            return all(cancel(self.account_id, each).status in TERMINAL for each in self._batch_ids) or None

        return bool(wait_until(ended, seconds))

    def call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The API's answer to a call with the account's key. What is refused for the moment is tried again.

        Raises:
            UnexpectedAnswerError: it is not a 200 with a JSON object.
        """
        answer = self._answer(method, path, **content)
        if answer.status_code == 401:
            raise UnexpectedAnswerError(
                f"{self.base_url} refuses a key that was just made. Does its name lead to another stack?"
            )
        if answer.status_code != 200:
            raise UnexpectedAnswerError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UnexpectedAnswerError(f"{method} {path} was not answered by Nightshift: {answer.text[:100]}")
        return found

    def _answer(self, method: str, path: str, **content: Any) -> "httpx.Response":
        import httpx

        for left in reversed(range(_TRIES)):
            try:
                answer = self.http.request(method, self.base_url + path, headers=self.headers, **content)
            except httpx.TransportError:
                if not left:
                    raise
            else:
                if answer.status_code not in _REFUSED_FOR_THE_MOMENT or not left:
                    return answer
            time.sleep(_POLL_SECONDS)
        raise AssertionError("unreachable")

    @contextmanager
    def only_route(self, route: "Route", *, paused: bool = False) -> "Iterator[Route]":
        """The route under a model name of its own, so that a batch takes this one and no caller's does.

        At its end, however it comes, the account's batches end before the route goes.
        """
        import msgspec
        from nightshift.routes import store as routes
        from nightshift.routes.state import RouteState

        trial = msgspec.structs.replace(route, model=f"doctor-{secrets.token_hex(8)}")
        try:
            if paused:
                RouteState(trial.id).put_control("paused")
            routes.apply([trial])
            yield trial
        finally:
            self._end_batches(_END_SECONDS)
            routes.delete(trial)
            RouteState(trial.id).forget()

    def begin(self, model: str, endpoint: str, bodies: list[dict[str, object]], webhook: str | None) -> dict[str, Any]:
        """A batch of these bodies, which ``webhook`` hears of."""
        lines = [
            json.dumps(
                {"custom_id": f"doctor-{n}", "method": "POST", "url": endpoint, "body": {"model": model, **body}}
            )
            for n, body in enumerate(bodies)
        ]
        content = "\n".join(lines).encode()
        file = self.call("POST", "/files", data={"purpose": "batch"}, files={"file": ("doctor.jsonl", content)})
        wanted = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
        # With a key, a call that is tried again makes no second batch.
        wanted |= {"idempotency_key": secrets.token_hex(8)} | ({"callback_url": webhook} if webhook else {})
        batch = self.call("POST", "/batches", json=wanted)
        self._batch_ids.append(batch["id"])
        return batch

    def ended(
        self, batch: dict[str, Any], cancel_at: float, is_hopeless: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """The batch at its end. At ``cancel_at``, or when it ``is_hopeless``, it is cancelled; as it is then, if it has
        not ended soon."""
        from nightshift.batches.status import TERMINAL

        while batch["status"] not in TERMINAL:
            if time.time() > cancel_at + _END_SECONDS:
                return batch
            if batch["status"] != "cancelling" and (time.time() >= cancel_at or is_hopeless()):
                batch = self.call("POST", f"/batches/{batch['id']}/cancel")
            else:
                time.sleep(_POLL_SECONDS)
                batch = self.call("GET", f"/batches/{batch['id']}")
        return batch


def wait_until(look: "Callable[[], _Found | None]", seconds: float) -> "_Found | None":
    """What ``look`` finds within so many seconds; None if that is nothing."""
    give_up_at = time.time() + seconds
    while (found := look()) is None and time.time() < give_up_at:
        time.sleep(_POLL_SECONDS)
    return found
