"""The API calls of the command line, with retries."""

import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from nightshift_cli.connection import Connection
from nightshift_cli.errors import ApiError, CliError, UnreachableError
from nightshift_cli.resources import Batch, BatchPage, Delivery, File, Upload, Visit, Webhook

# How long a failing call is retried, in seconds of waiting.
READ_RETRY_SECONDS = 3.0
CREATE_RETRY_SECONDS = 60.0
UPLOAD_RETRY_SECONDS = 300.0
WATCH_RETRY_SECONDS = 3600.0
LONGEST_WAIT_SECONDS = 30.0
_VISIT_PAGES = 5
_RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
# Errors with such a status that a retry within a minute does not change.
_FINAL_CODES = frozenset({"quota_exceeded", "batch_routing_unavailable"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Notice = Callable[[str], None]
Result = TypeVar("Result")


def _ignore(_: str) -> None:
    pass


class Client:
    """Retries a call that the network or the server fails: a GET always, a POST only if repeating it is harmless."""

    def __init__(self, connection: Connection, transport: httpx.BaseTransport | None = None) -> None:
        if not connection.api_key.isascii() or not connection.api_key.isprintable():
            raise CliError("The API key is not valid: it contains characters other than printable ASCII.")
        try:
            url = httpx.URL(connection.base_url)
        except httpx.InvalidURL as error:
            raise CliError(f"The base URL {connection.base_url} is not valid: {error}.") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise CliError(f"The base URL {connection.base_url} must start with https:// or http://.")
        self.base_url = connection.base_url.rstrip("/")
        self._authorization = {"Authorization": f"Bearer {connection.api_key}"}
        # Authorization is not a header of the whole client, because downloads go to S3, which must not get the key.
        self._http = httpx.Client(
            timeout=httpx.Timeout(60, connect=10),
            transport=transport,
            # A proxy from the environment cannot reach this machine's loopback.
            trust_env=url.host not in _LOOPBACK,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path) -> File:
        """Upload the file for a batch and return its file object."""
        with path.open("rb") as content:
            part = (path.name, content, "application/jsonl")
            file: File = self._post("/files", data={"purpose": "batch"}, files={"file": part})
            return file

    def create_upload(self, name: str, size: int, *, notice: Notice = _ignore) -> Upload:
        """Start an upload in parts. If it is started twice, the API deletes the other one after an hour."""
        body = {"purpose": "batch", "filename": name, "bytes": size, "mime_type": "application/jsonl"}
        upload: Upload = self._post_with_retries("/uploads", UPLOAD_RETRY_SECONDS, notice, json=body)
        return upload

    def add_part(self, upload_id: str, content: bytes, *, notice: Notice = _ignore) -> str:
        """Send a part and return its id. A part that was sent twice does no harm: ``complete_upload`` names the ids."""
        path = f"/uploads/{quote(upload_id, safe='')}/parts"
        part = {"data": ("part", content, "application/octet-stream")}
        part_id: str = self._post_with_retries(path, UPLOAD_RETRY_SECONDS, notice, files=part)["id"]
        return part_id

    def complete_upload(self, upload_id: str, part_ids: list[str], md5: str, *, notice: Notice = _ignore) -> File:
        """Join the parts and return the file. A completed upload is returned unchanged."""
        path = f"/uploads/{quote(upload_id, safe='')}/complete"
        body = {"part_ids": part_ids, "md5": md5}
        file: File = self._post_with_retries(path, UPLOAD_RETRY_SECONDS, notice, json=body)["file"]
        return file

    def create_batch(self, body: Mapping[str, object], *, key: str, notice: Notice = _ignore) -> Batch:
        """Create a batch. Retries create no second one, because ``key`` is the Idempotency-Key of all of them."""
        headers = {"Idempotency-Key": key}
        batch: Batch = self._post_with_retries("/batches", CREATE_RETRY_SECONDS, notice, json=body, headers=headers)
        return batch

    def retry_batch(self, batch_id: str, *, key: str, notice: Notice = _ignore) -> Batch:
        """Create a batch of the lines that failed in another; ``key`` as for ``create_batch``."""
        path = f"/batches/{quote(batch_id, safe='')}/retry"
        batch: Batch = self._post_with_retries(path, CREATE_RETRY_SECONDS, notice, headers={"Idempotency-Key": key})
        return batch

    def rotate_webhook(self) -> Webhook:
        """Give the account a new signing secret, which no other call shows."""
        webhook: Webhook = self._post("/webhook/rotate")
        return webhook

    def cancel_batch(self, batch_id: str) -> Batch:
        batch: Batch = self._post(f"/batches/{quote(batch_id, safe='')}/cancel")
        return batch

    def batch(self, batch_id: str, *, retry_seconds: float = READ_RETRY_SECONDS, notice: Notice = _ignore) -> Batch:
        batch: Batch = self._get(f"/batches/{quote(batch_id, safe='')}", retry_seconds, notice)
        return batch

    def deliveries(self, batch_id: str) -> list[Delivery]:
        """The deliveries of the batch's webhook, with their tries."""
        path = f"/batches/{quote(batch_id, safe='')}/webhook_deliveries"
        found: list[Delivery] = self._get(path, READ_RETRY_SECONDS, _ignore)["data"]
        return found

    def visits(self, batch_id: str) -> list[Visit]:
        """The last thousands of the visits of workers, newest first; none of a stack that does not tell them."""
        path = f"/batches/{quote(batch_id, safe='')}/visits?limit=1000"
        found: list[Visit] = []
        after = ""
        try:
            for _ in range(_VISIT_PAGES):
                page = self._get(path + after, READ_RETRY_SECONDS, _ignore)
                found += page["data"]
                if not page["has_more"]:
                    break
                after = f"&after={page['last_id']}"
        except ApiError as error:
            if error.status != 404:
                raise
        return found

    def batches(self) -> BatchPage:
        """The first page of batches, newest first."""
        page: BatchPage = self._get("/batches", READ_RETRY_SECONDS, _ignore)
        return page

    def download(self, file_id: str, target: Path, *, notice: Notice = _ignore) -> None:
        """Write the file's content to ``target``, which is created or replaced only when the download is complete."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._with_retries(WATCH_RETRY_SECONDS, notice, lambda: self._download(file_id, partial))
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
        # Followed here, because httpx keeps the Authorization header on a redirect to the same host.
        with self._http.stream("GET", location, follow_redirects=True) as answer:
            _write(answer, partial)

    def _get(self, path: str, retry_seconds: float, notice: Notice) -> Any:
        def get() -> Any:
            return _content(self._http.get(self.base_url + path, headers=self._authorization))

        return self._with_retries(retry_seconds, notice, get)

    def _post(self, path: str, **body: Any) -> Any:
        try:
            return self._send(path, **body)
        except httpx.RequestError as error:
            raise UnreachableError(f"POST {path} was not answered: {_reason(error)}.") from None

    def _post_with_retries(self, path: str, retry_seconds: float, notice: Notice, **body: Any) -> Any:
        return self._with_retries(retry_seconds, notice, lambda: self._send(path, **body))

    def _send(self, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        headers = {**self._authorization, **(headers or {})}
        return _content(self._http.post(self.base_url + path, headers=headers, **body))

    def _with_retries(self, retry_seconds: float, notice: Notice, call: Callable[[], Result]) -> Result:
        """The result of ``call``, retried for ``retry_seconds`` of waiting while the network or the server fails it."""
        waited, step = 0.0, 1.0
        while True:
            wait = step * random.uniform(0.5, 1.0)
            try:
                return call()
            except httpx.RequestError as error:
                if waited >= retry_seconds:
                    raise UnreachableError(f"{self.base_url} cannot be reached: {_reason(error)}.") from None
                reason = _reason(error)
            except ApiError as error:
                if not _is_temporary(error) or waited >= retry_seconds:
                    raise
                reason = f"HTTP {error.status}"
                wait = max(wait, min(error.retry_after, 2 * LONGEST_WAIT_SECONDS))
            notice(f"The call failed ({reason}); retrying in {wait:.0f} s.")
            time.sleep(wait)
            waited, step = waited + wait, min(2 * step, LONGEST_WAIT_SECONDS)


def _is_temporary(error: ApiError) -> bool:
    """Whether the same call may succeed a little later."""
    if error.code == "idempotency_in_progress":
        return True
    return error.status in _RETRIED_STATUSES and error.code not in _FINAL_CODES


def _content(answer: httpx.Response) -> Any:
    """The answer's JSON object.

    Raises:
        ApiError: the answer is an error.
        CliError: the answer is not a JSON object.
    """
    _check(answer)
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CliError(f"{answer.url} did not return a JSON object. Check the base URL.")
    return content


def _write(answer: httpx.Response, path: Path) -> None:
    if not answer.is_success:
        answer.read()
    _check(answer)
    with path.open("wb") as file:
        for block in answer.iter_bytes():
            file.write(block)


def _check(answer: httpx.Response) -> None:
    """Raise an ``ApiError`` if the answer is an error."""
    if answer.is_success:
        return
    try:
        error = answer.json()["error"]
        message = error["message"]
    except (ValueError, KeyError, TypeError):
        # The answer of a proxy, of S3 or of another server has no error envelope, and its page would not help.
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
