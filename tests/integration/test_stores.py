"""The stores of accounts, files and routes, against moto."""

import re
import time
import urllib.parse
from typing import Any

import pytest
from botocore.exceptions import IncompleteReadError
from botocore.response import StreamingBody
from nightshift.accounts import store as accounts
from nightshift.core import aws, settings
from nightshift.core.errors import NotFoundError
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.files import uploads
from nightshift.files.create import NewFile, create_file, create_presigned
from nightshift.files.record import File, Upload
from nightshift.routes import store as routes

from tests.integration.support import Caller, object_keys, route

# --- accounts -------------------------------------------------------------------------------------------------------


def test_an_account_is_found_by_name_and_id() -> None:
    account_id = accounts.create_account("alice")
    assert accounts.get(account_id).name == "alice"
    assert accounts.find("alice") == accounts.find(account_id) == accounts.get(account_id)


def test_an_unknown_or_shared_name_finds_none() -> None:
    twins = [accounts.create_account("twin") for _ in range(2)]
    for name in ("nobody", "twin"):
        with pytest.raises(NotFoundError):
            accounts.find(name)
    assert [accounts.find(twin).id for twin in twins] == twins
    with pytest.raises(NotFoundError):
        accounts.get("acct_unknown")


def test_a_key_is_stored_as_its_hash_alone(alice: Caller, bob: Caller) -> None:
    assert accounts.authenticate(alice.api_key) == alice.account_id
    assert accounts.authenticate(bob.api_key) == bob.account_id
    stored = str(aws.client("dynamodb").scan(TableName=settings.table("accounts"))["Items"])
    assert alice.api_key not in stored
    assert alice.api_key.removeprefix(accounts.KEY_PREFIX) not in stored


def test_each_key_is_revoked_on_its_own(alice: Caller) -> None:
    second, shown = accounts.create_key(alice.account_id)
    assert {key.id for key in accounts.list_keys(alice.account_id)} > {shown.id}
    assert (shown.account_id, shown.hint[-4:]) == (alice.account_id, second[-4:])
    accounts.revoke_key(alice.account_id, shown.id)
    assert accounts.authenticate(second) is None
    assert accounts.authenticate(alice.api_key) == alice.account_id
    assert shown not in accounts.list_keys(alice.account_id)
    with pytest.raises(NotFoundError):
        accounts.revoke_key(alice.account_id, shown.id)


def test_only_its_account_revokes_a_key(alice: Caller, bob: Caller) -> None:
    [key] = accounts.list_keys(alice.account_id)
    with pytest.raises(NotFoundError):
        accounts.revoke_key(bob.account_id, key.id)
    assert accounts.authenticate(alice.api_key) == alice.account_id


def test_a_revoked_key_leaves_the_cache(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0  # so that what is added is also the difference
    monkeypatch.setattr(time, "monotonic", lambda: now)
    accounts.authenticate(alice.api_key)
    [key] = accounts.list_keys(alice.account_id)
    accounts.revoke_key(alice.account_id, key.id)
    monkeypatch.setattr(time, "monotonic", lambda: now + accounts.KEY_CACHE_SECONDS)
    assert accounts.authenticate(alice.api_key) is None


def test_a_cached_key_needs_no_look_up(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.authenticate(alice.api_key)
    monkeypatch.delenv("ACCOUNTS_TABLE")
    assert accounts.authenticate(alice.api_key) == alice.account_id


def test_a_key_ends_at_its_time(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    api_key, key = accounts.create_key(alice.account_id, int(now) + 10)
    assert accounts.authenticate(api_key) == alice.account_id
    assert key in accounts.list_keys(alice.account_id)
    monkeypatch.setattr(time, "time", lambda: now + 10)
    assert accounts.authenticate(api_key) is None, "in the cache too"
    accounts._known.clear()
    assert accounts.authenticate(api_key) is None


def test_a_key_can_be_given_an_end_and_no_longer_one(alice: Caller) -> None:
    api_key, key = accounts.create_key(alice.account_id)
    accounts.expire_key(alice.account_id, key.id, 4_000_000_000)
    assert accounts.authenticate(api_key) == alice.account_id
    accounts._known.clear()
    accounts.expire_key(alice.account_id, key.id, 1_000)
    accounts.expire_key(alice.account_id, key.id, 4_000_000_000)
    assert accounts.authenticate(api_key) is None
    with pytest.raises(NotFoundError):
        accounts.expire_key(alice.account_id, "key_unknown", 1_000)


def test_the_keys_of_a_disabled_account_rest(alice: Caller, bob: Caller) -> None:
    accounts.disable(alice.account_id)
    assert accounts.get(alice.account_id).disabled_at
    assert accounts.authenticate(alice.api_key) is None
    assert accounts.authenticate(bob.api_key) == bob.account_id
    accounts.enable(alice.account_id)
    assert accounts.authenticate(alice.api_key) == alice.account_id
    for change in (accounts.disable, accounts.enable):
        with pytest.raises(NotFoundError):
            change("acct_unknown")


@pytest.mark.parametrize("guess", ["", "sk-ns-", "account", "acct_1", "sk-ns-" + "a" * 42, "sk-ns-" + "é" * 43])
def test_what_can_be_no_key_needs_no_look_up(guess: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCOUNTS_TABLE")
    assert accounts.authenticate(guess) is None


def test_another_key_is_unknown(alice: Caller) -> None:
    assert accounts.authenticate("sk-ns-" + "a" * 43) is None


# --- files ----------------------------------------------------------------------------------------------------------

FILE = File(
    account_id="acct_1", id="file_1", filename="in.jsonl", purpose="batch", size=3, status="processed", created_at=1
)
NEW = NewFile(filename="in.jsonl", purpose="batch")


def test_a_file_belongs_to_one_account(alice: Caller, bob: Caller) -> None:
    file_id = alice.upload(b"abc")
    assert files.get(alice.account_id, file_id).size == 3
    with pytest.raises(NotFoundError):
        files.get(bob.account_id, file_id)


def test_an_expired_file_is_gone_at_once(alice: Caller) -> None:
    now = int(time.time())
    for file_id, expires_at in (("file_alive", now + 60), ("file_dead", now)):
        files.record(alice.account_id, file_id, filename="x", purpose="batch", size=3, expires_at=expires_at)
    assert files.get(alice.account_id, "file_alive").expires_at == now + 60
    with pytest.raises(NotFoundError):
        files.get(alice.account_id, "file_dead")


def test_a_file_is_read_consistently(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may be made of a file as soon as the file is there."""
    file_id = alice.upload(b"abc")
    asked: list[dict[str, Any]] = []
    get_item = aws.client("dynamodb").get_item

    def noted(**named: Any) -> Any:
        asked.append(named)
        return get_item(**named)

    monkeypatch.setattr(aws.client("dynamodb"), "get_item", noted)
    files.get(alice.account_id, file_id)
    assert [named.get("ConsistentRead") for named in asked] == [True]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("in.jsonl", "in.jsonl"),
        ('a"; filename="b.exe', "a_; filename=_b.exe"),
        ("a\r\nSet-Cookie: b=c", "a__Set-Cookie: b=c"),
        ("r\u00e9sum\u00e9.jsonl", "r_sum_.jsonl"),
        ("a\\b%41", "a_b_41"),
        ("\U0001f600", "_"),
        ("\u202egnp.exe", "_gnp.exe"),
    ],
)
def test_a_file_name_stays_inside_its_header(alice: Caller, name: str, plain: str) -> None:
    file = files.record(alice.account_id, "file_1", filename=name, purpose="batch", size=3, expires_at=None)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(files.download_url(file)).query)
    [disposition] = query["response-content-disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    head, _, encoded = disposition.partition("; filename*=UTF-8''")
    assert head == f'attachment; filename="{plain}"'
    assert urllib.parse.unquote(encoded) == name


def test_a_file_is_read_in_ranges(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 4)
    file_id = alice.upload(b"0123456789")
    assert list(files.read_blocks(alice.account_id, file_id, 10)) == [b"0123", b"4567", b"89"]
    assert list(files.read_blocks(alice.account_id, file_id, 8)) == [b"0123", b"4567"]
    assert files.read_range(alice.account_id, file_id, 3, 5) == b"34"
    with pytest.raises(NotFoundError):
        files.read_range(alice.account_id, "file_gone", 0, 1)


def test_stored_bytes_are_those_that_count(alice: Caller) -> None:
    """The table's TTL deletes late, and a completed upload counts as its file."""
    now = int(time.time())
    for expires_at in (None, now + 100, now - 100):
        files.record(
            alice.account_id, f"file_{expires_at}", filename="a", purpose="batch", size=10, expires_at=expires_at
        )
    create_presigned(alice.account_id, NEW, 200)
    for end in (lambda upload: upload, uploads.cancel, completed):
        end(uploads.create(alice.account_id, NEW, size=4_000, mime_type="text/jsonl"))
    assert files.stored_bytes(alice.account_id) == 20 + 200 + 4_000 + 4_000


def completed(upload: Upload) -> None:
    """Complete an upload with one part."""
    part_id = uploads.add_part(upload, b"a" * upload.size)
    done, file = uploads.complete(upload, [part_id], None)
    assert (done.status, done.file_id, file.size) == ("completed", file.id, upload.size)


def test_bytes_always_have_a_record(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed call leaves a record that expires soon, and its end deletes the bytes."""

    def killed(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    monkeypatch.setattr(files, "arrived", killed)
    with pytest.raises(MemoryError):
        create_file(alice.account_id, NEW, b"{}")
    [item] = Table("files").scan()
    assert (item["status"], item["expires_at"] < time.time() + 3700) == ("uploaded", True)


def test_no_filter_names_a_key_attribute(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB rejects such a query; moto runs it."""
    filters: list[str] = []
    dynamodb = aws.client("dynamodb")

    def noted(operation: str, request: dict[str, Any]) -> Any:
        filters.append(request.get("FilterExpression", ""))
        return call(operation, request)

    call = dynamodb._make_api_call  # type: ignore[attr-defined]  # a paginator calls it without the client's method
    monkeypatch.setattr(dynamodb, "_make_api_call", noted)
    files.stored_bytes(alice.account_id)
    files.list_page(alice.account_id, limit=1, after=None, ascending=True, purpose="batch")
    assert len(filters) == 2
    assert all(filters)
    assert not {"pk", "sk"} & set(re.findall(r"\w+", " ".join(filters)))


# --- routes ---------------------------------------------------------------------------------------------------------


def test_apply_replaces_only_the_named_models() -> None:
    other = route(model="other")
    assert routes.apply([route(provider="a"), route(provider="b"), other]) == (3, 0)
    kept = route(provider="b", priority=1, api_key_secret="nightshift/b")
    assert routes.apply([kept]) == (1, 1)
    assert routes.for_model(kept.model) == [kept]
    assert routes.all_routes() == [kept, other]
    assert routes.for_model("unknown") == []


def test_routes_sort_by_model_then_priority() -> None:
    given = [route(model=model, provider=f"p{priority}", priority=priority) for model in "ba" for priority in (20, 1)]
    routes.apply(given)
    assert [(found.model, found.priority) for found in routes.all_routes()] == [
        ("a", 1),
        ("a", 20),
        ("b", 1),
        ("b", 20),
    ]


# --- aws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2"])
def test_presigned_urls_name_the_region(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    aws._session.cache_clear()
    aws._client.cache_clear()
    try:
        url = files.download_url(FILE)
    finally:
        aws._session.cache_clear()
        aws._client.cache_clear()
    expected = {f"{settings.bucket()}.s3.{region}.amazonaws.com"}
    if region == "us-east-1":
        expected.add(f"{settings.bucket()}.s3.amazonaws.com")
    assert urllib.parse.urlsplit(url).hostname in expected


def test_credentials_may_come_from_sso() -> None:
    for service in ("sts", "sso", "sso-oidc"):
        assert aws._session().create_client(service)


def test_a_broken_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=settings.bucket(), Key="work/x", Body=b"0123456789")
    monkeypatch.setattr("nightshift.core.aws.time.sleep", lambda _: None)
    read, broken = StreamingBody.read, iter([True, True, False, True, True, True])

    def breaks(self: StreamingBody, amt: int | None = None) -> bytes:
        content = read(self, amt)
        if next(broken):
            raise IncompleteReadError(actual_bytes=1, expected_bytes=2)
        return content

    monkeypatch.setattr(StreamingBody, "read", breaks)
    assert aws.read_object(settings.bucket(), "work/x", 2, 5) == b"234"
    with pytest.raises(IncompleteReadError):
        aws.read_object(settings.bucket(), "work/x")


def test_a_purge_spares_the_bytes_of_a_new_record(alice: Caller) -> None:
    file_id = alice.upload(b"{}\n")
    files.purge(alice.account_id, file_id)
    assert object_keys("files/") == [files.key(alice.account_id, file_id)]
    files.delete(alice.account_id, file_id)
    files.purge(alice.account_id, file_id)
    assert not object_keys("files/")
