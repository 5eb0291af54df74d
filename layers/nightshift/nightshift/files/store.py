"""Files: their records in the table ``Files`` (pk account, sk file id) and their bytes in the bucket.

When a record is deleted or expires, PurgeFile deletes the bytes: it reads the table's stream.
"""

import time
import urllib.parse
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import msgspec

from nightshift.core import bucket
from nightshift.core.errors import NotFoundError
from nightshift.core.table import Item, Table, decode
from nightshift.files.record import File, Purpose

BLOCK_BYTES = 4 * 1024 * 1024
# Blocks that are read while the caller works on one.
BLOCKS_AHEAD = 2
DOWNLOAD_SECONDS = 900
CONTENT_TYPE = "application/jsonl"

_FILES = Table("files")


# --- records --------------------------------------------------------------------------------------------------------


def put(file: File) -> File:
    """Record a file and return it; a record with the same id is replaced."""
    _FILES.put(msgspec.to_builtins(file))
    return file


def put_new(file: File) -> None:
    """Record a file, unless there is a record with the same id."""
    _FILES.put(msgspec.to_builtins(file), condition="attribute_not_exists(sk)")


def record(
    account_id: str,
    file_id: str,
    *,
    filename: str,
    purpose: Purpose,
    size: int,
    expires_at: int | None,
    created_at: int | None = None,
) -> File:
    """Record a file whose ``size`` bytes are in the bucket; a record with the same id is replaced."""
    return put(
        File(
            account_id=account_id,
            id=file_id,
            filename=filename,
            purpose=purpose,
            size=size,
            status="processed",
            created_at=created_at or int(time.time()),
            expires_at=expires_at,
        )
    )


def get(account_id: str, file_id: str, param: str = "file_id") -> File:
    """The file with this id; ``param`` is the request's parameter that named it.

    A presigned file becomes ``processed`` as soon as its bytes are in the bucket.

    Raises:
        NotFoundError: unknown, deleted, expired or another account's; the error is the same for all of them.
    """
    # DynamoDB limits the length of a key, so only an id of our own form is looked up.
    if file_id.startswith("file_") and len(file_id) < 64:
        found = _FILES.get(account_id, file_id, consistent=True)
        file = found and _file(found)
        # The table's TTL deletes late.
        if file and not file.has_expired(time.time()):
            return _with_arrival(file)
    raise NotFoundError("File not found.", code="file_not_found", param=param)


def exists(account_id: str, file_id: str) -> bool:
    """Whether the account has this file."""
    try:
        get(account_id, file_id)
    except NotFoundError:
        return False
    return True


def list_page(
    account_id: str, *, limit: int, after: str | None, ascending: bool, purpose: str | None
) -> tuple[list[File], bool]:
    """The account's files by age, after the id ``after``; then whether there are more."""
    conditions = ["(attribute_not_exists(#expires_at) OR #expires_at > :now)"]
    values: dict[str, Any] = {"now": int(time.time())}
    if purpose is not None:
        conditions.append("#purpose = :purpose")
        values["purpose"] = purpose
    found, more = _FILES.page(
        "pk = :account_id AND begins_with(sk, :prefix)",
        limit=limit,
        after=(account_id, after) if after else None,
        ascending=ascending,
        filter=" AND ".join(conditions),
        account_id=account_id,
        prefix="file_",
        **values,
    )
    return [_with_arrival(_file(item)) for item in found], more


def stored_bytes(account_id: str) -> int:
    """How many bytes the account's files have, together with those of its presigned files and pending uploads."""
    found = _FILES.query(
        "pk = :account_id",
        # A completed upload is left out, because its file counts. Expired items count as deleted, because only the
        # table's TTL can delete them. A filter cannot name a key attribute, so it selects by status.
        filter="#status IN (:uploaded, :processed, :pending)"
        " AND (attribute_not_exists(#expires_at) OR #expires_at > :now)",
        account_id=account_id,
        uploaded="uploaded",
        processed="processed",
        pending="pending",
        now=int(time.time()),
    )
    return sum(item["bytes"] for item in found)


def delete(account_id: str, file_id: str) -> None:
    """Delete the file's record, and by it the file; PurgeFile deletes the bytes soon after.

    Raises:
        NotFoundError: there is no such file.
    """
    get(account_id, file_id)
    _FILES.delete(account_id, file_id)


def deleted_file(stream_record: Mapping[str, Any]) -> tuple[str, str] | None:
    """The account and the id of the file whose record was deleted or has expired; None for any other change."""
    if stream_record["eventName"] != "REMOVE":
        return None
    key_of_item = decode(stream_record["dynamodb"]["Keys"])
    account_id, item_id = key_of_item["pk"], key_of_item["sk"]
    return (account_id, item_id) if item_id.startswith("file_") else None


def _file(item: Item) -> File:
    return msgspec.convert(item, File)


def _with_arrival(file: File) -> File:
    """A presigned file whose bytes have arrived, as ``processed``; any other file as it is."""
    if file.status != "uploaded" or bucket.head(key(file.account_id, file.id)) is None:
        return file
    return arrived(file)


def arrived(file: File) -> File:
    """Record that the bytes of an ``uploaded`` file are in the bucket."""
    expires_at = file.created_at + file.expires_seconds if file.expires_seconds else None
    processed = _FILES.update(
        file.account_id,
        file.id,
        set={"status": "processed", "expires_at": expires_at},
        remove=() if expires_at else ("expires_at",),
        condition="#status = :uploaded",
        uploaded="uploaded",
    )
    # Where the condition failed, another request has recorded the arrival or deleted the file.
    return _file(processed) if processed else get(file.account_id, file.id)


def hold(file: File, until: int) -> None:
    """Keep the file from expiring before ``until``, in seconds since 1970.

    Raises:
        NotFoundError: the file was deleted since it was read.
    """
    held = _FILES.update(
        file.account_id,
        file.id,
        set={"expires_at": until},
        condition="attribute_exists(#expires_at) AND #expires_at < :expires_at",
    )
    if held is None:
        get(file.account_id, file.id, param="input_file_id")


# --- bytes ----------------------------------------------------------------------------------------------------------


def key(account_id: str, file_id: str) -> str:
    """The key of the file's bytes in the bucket."""
    return f"files/{account_id}/{file_id}"


def put_content(file: File, content: bytes | BinaryIO) -> None:
    """Write the file's bytes."""
    bucket.put(key(file.account_id, file.id), content, content_type=CONTENT_TYPE)


def is_recorded(account_id: str, file_id: str) -> bool:
    """Whether the file has a record, expired or not."""
    return _FILES.get(account_id, file_id, consistent=True) is not None


def purge(account_id: str, file_id: str) -> None:
    """Delete the bytes of a file whose record is gone, in every version.

    Work that is repeated can record its file again under the same id: then the bytes are the new record's.
    """
    if not is_recorded(account_id, file_id):
        bucket.erase(key(account_id, file_id))


def upload_url(file: File, seconds: int) -> tuple[str, dict[str, str]]:
    """A URL that takes the file's bytes in one PUT within ``seconds``, and the headers that the PUT has to carry."""
    return bucket.presigned_put(
        key(file.account_id, file.id), size=file.size, content_type=CONTENT_TYPE, seconds=seconds
    )


def download_url(file: File, *, head: bool = False) -> str:
    """A URL for a GET of the file's bytes, or for a HEAD, within ``DOWNLOAD_SECONDS``."""
    return bucket.presigned_get(
        key(file.account_id, file.id),
        content_type=CONTENT_TYPE,
        disposition=attachment(file.filename),
        seconds=DOWNLOAD_SECONDS,
        head=head,
    )


def attachment(filename: str) -> str:
    """A Content-Disposition (RFC 6266): a plain name for old clients, and the encoded one for all others."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(filename, safe='')}"


def read_blocks(account_id: str, file_id: str, size: int) -> Iterator[bytes]:
    """The first ``size`` bytes of the file in blocks; the next blocks are read while the caller works on one.

    Raises:
        NotFoundError: the bytes are gone.
    """
    ahead: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(BLOCKS_AHEAD) as pool:
        for start in range(0, size, BLOCK_BYTES):
            ahead.append(pool.submit(read_range, account_id, file_id, start, min(size, start + BLOCK_BYTES)))
            if len(ahead) > BLOCKS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def read_range(account_id: str, file_id: str, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` (not included).

    Raises:
        NotFoundError: the bytes are gone.
    """
    content = bucket.read(key(account_id, file_id), start, end)
    if content is None:
        raise NotFoundError("File not found.", code="file_not_found", param="input_file_id")
    return content
