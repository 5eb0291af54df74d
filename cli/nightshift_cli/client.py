"""The few calls of the API that the command line makes."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from nightshift_cli.connection import Connection
from nightshift_cli.errors import ApiError, CliError, UnreachableError

# How long a call is tried again, in seconds of waiting: a question asked once, a batch that is created, a file that
# is uploaded, and a batch that is watched.
ASKING = 3.0
CREATING = 60.0
UPLOADING = 300.0
WATCHING = 3600.0
LONGEST_WAIT = 30.0
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
# Refusals under such a status that stay what they are however soon one asks again.
_FINAL = frozenset({"quota_exceeded", "batch_routing_unavailable"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Notice = Callable[[str], None]
Result = TypeVar("Result")


def _ignore(_: str) -> None:
    pass


class Client:
    """A call that fails on the way is tried again: a GET always, a POST only where doing it twice does no harm."""

    def __init__(self, connection: Connection, transport: httpx.BaseTransport | None = None) -> None:
        if not connection.api_key.isascii() or not connection.api_key.isprintable():
            raise CliError("The API key has characters that no key has.")
        try:
            url = httpx.URL(connection.base_url)
        except httpx.InvalidURL as error:
            raise CliError(f"The base URL {connection.base_url} is not valid: {error}.") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise CliError(f"The base URL {connection.base_url} must start with https:// or http://.")
        self.base_url = connection.base_url.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {connection.api_key}"}
        # No Authorization among the client's own headers: downloads go to S3, which must not see the key.
        self._http = httpx.Client(
            timeout=httpx.Timeout(60, connect=10),
            transport=transport,
            # A proxy from the environment cannot reach this machine's own loopback.
            trust_env=url.host not in _LOOPBACK,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload the file for a batch and return its file object."""
        with path.open("rb") as content:
            part = (path.name, content, "application/jsonl")
            return self._post("/files", data={"purpose": "batch"}, files={"file": part})

    def create_upload(self, name: str, size: int, *, notice: Notice = _ignore) -> dict[str, Any]:
        """Begin an upload in parts. One begun twice is forgotten by the API after an hour."""
        wanted = {"purpose": "batch", "filename": name, "bytes": size, "mime_type": "application/jsonl"}
        return self._post_patiently("/uploads", UPLOADING, notice, json=wanted)

    def add_part(self, upload_id: str, content: bytes, *, notice: Notice = _ignore) -> str:
        """Send a part and return its id. One sent twice is left out by ``complete_upload``, which names the ids."""
        path = f"/uploads/{quote(upload_id, safe='')}/parts"
        part = {"data": ("part", content, "application/octet-stream")}
        part_id: str = self._post_patiently(path, UPLOADING, notice, files=part)["id"]
        return part_id

    def complete_upload(
        self, upload_id: str, part_ids: list[str], md5: str, *, notice: Notice = _ignore
    ) -> dict[str, Any]:
        """Join the parts and return the file object. What is completed already is answered as it is."""
        path = f"/uploads/{quote(upload_id, safe='')}/complete"
        whole = {"part_ids": part_ids, "md5": md5}
        file: dict[str, Any] = self._post_patiently(path, UPLOADING, notice, json=whole)["file"]
        return file

    def create_batch(self, body: dict[str, Any], *, key: str, notice: Notice = _ignore) -> dict[str, Any]:
        """Create a batch, and only one however often it is tried: ``key`` is the Idempotency-Key."""
        headers = {"Idempotency-Key": key}
        return self._post_patiently("/batches", CREATING, notice, json=body, headers=headers)

    def rotate_webhook(self) -> dict[str, Any]:
        """Give the account a new signing secret, which no other call shows."""
        return self._post("/webhook/rotate")

    def cancel_batch(self, batch_id: str) -> dict[str, Any]:
        return self._post(f"/batches/{quote(batch_id, safe='')}/cancel")

    def batch(self, batch_id: str, *, patience: float = ASKING, notice: Notice = _ignore) -> dict[str, Any]:
        return self._get(f"/batches/{quote(batch_id, safe='')}", patience, notice)

    def batches(self) -> dict[str, Any]:
        """The first page of batches, newest first."""
        return self._get("/batches", ASKING, _ignore)

    def download(self, file_id: str, target: Path, *, notice: Notice = _ignore) -> None:
        """Write the file's content to ``target``, which appears when it is whole and not before."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._patiently(WATCHING, notice, lambda: self._download(file_id, partial))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _download(self, file_id: str, partial: Path) -> None:
        url, headers = f"{self.base_url}/files/{file_id}/content", self._authorization
        with self._http.stream("GET", url, headers=headers) as answer:
            if not answer.has_redirect_location:
                _write(answer, partial)
                return
            location = answer.url.join(answer.headers["Location"])
        # httpx would keep the Authorization header where both are the same host.
        with self._http.stream("GET", location, follow_redirects=True) as answer:
            _write(answer, partial)

    def _get(self, path: str, patience: float, notice: Notice) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            return _content(self._http.get(self.base_url + path, headers=self._authorization))

        return self._patiently(patience, notice, ask)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        try:
            return self._send(path, **body)
        except httpx.RequestError as error:
            raise UnreachableError(f"No answer came to POST {path}: {_reason(error)}.") from None

    def _post_patiently(self, path: str, patience: float, notice: Notice, **body: Any) -> dict[str, Any]:
        return self._patiently(patience, notice, lambda: self._send(path, **body))

    def _send(self, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        headers = {**self._authorization, **(headers or {})}
        return _content(self._http.post(self.base_url + path, headers=headers, **body))

    def _patiently(self, patience: float, notice: Notice, call: Callable[[], Result]) -> Result:
        """Do ``call``, again and again while the network or the server fails it, until ``patience`` is used up."""
        waited, step = 0.0, 1.0
        while True:
            wait = step * random.uniform(0.5, 1.0)
            try:
                return call()
            except httpx.RequestError as error:
                if waited >= patience:
                    raise UnreachableError(f"{self.base_url} cannot be reached: {_reason(error)}.") from None
                trouble = _reason(error)
            except ApiError as error:
                if not _may_pass(error) or waited >= patience:
                    raise
                trouble = f"HTTP {error.status}"
                wait = max(wait, min(error.retry_after, 2 * LONGEST_WAIT))
            notice(f"No answer ({trouble}); trying again in {wait:.0f} s.")
            time.sleep(wait)
            waited, step = waited + wait, min(2 * step, LONGEST_WAIT)


def _may_pass(error: ApiError) -> bool:
    """Whether the same call may be answered well a little later."""
    return error.code == "idempotency_in_progress" or (error.status in _TRY_AGAIN and error.code not in _FINAL)


def _content(answer: httpx.Response) -> dict[str, Any]:
    _check(answer)
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CliError(f"{answer.url} did not answer with a JSON object. Is the base URL right?")
    return content


def _write(answer: httpx.Response, path: Path) -> None:
    if not answer.is_success:
        answer.read()
    _check(answer)
    with path.open("wb") as file:
        for block in answer.iter_bytes():
            file.write(block)


def _check(answer: httpx.Response) -> None:
    """
    Raises:
        ApiError: the answer is no success.
    """
    if answer.is_success:
        return
    try:
        error = answer.json()["error"]
        message = error["message"]
    except (ValueError, KeyError, TypeError):
        # Not our envelope: a proxy, S3, or another server altogether. Its page would help nobody.
        error, message = {}, f"{answer.url.host} answered HTTP {answer.status_code}."
    seconds = answer.headers.get("Retry-After", "")
    raise ApiError(
        str(message),
        status=answer.status_code,
        code=error.get("code"),
        param=error.get("param"),
        details=error.get("details") or (),
        request_id=answer.headers.get("x-request-id"),
        retry_after=float(seconds) if seconds.isdigit() else 0.0,
    )


def _reason(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
