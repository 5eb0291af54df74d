"""Batches that another version of the code has begun.

``stored`` holds what versions stored, with batches in each stage: a file for each ``FORMAT``, and one for what was
stored before there was one. To add one, run ``SNAPSHOT=write pytest tests/integration/test_stored_formats.py``.
"""

import os
from pathlib import Path

import msgspec
import pytest
from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.batches import store as batches
from nightshift.batches.record import FORMAT
from nightshift.chunks.chunk import Carry
from nightshift.core.errors import UnavailableError
from nightshift.core.table import Table, encode
from nightshift.input import layout, plan
from nightshift.results import store as results
from nightshift.results.line import answered_line
from nightshift.results.usage import Usage
from nightshift.routes.level import Level
from nightshift_cli.admin.restore import Lost, belongs

from tests.integration import snapshot
from tests.integration.support import Caller, Server, apply_route, input_lines, invoke, run_chunk, set_batch

STORED = Path(__file__).parent / "stored"
LATER = 4_000_000_000  # no batch of a snapshot has expired


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of two lines, and chunks of three segments."""
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 6)


def begin(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in each stage, named by their metadata."""
    accounts.set_quotas(alice.account_id, {"active_batches": 7, "dollars_a_day": 5.0})
    alice("PUT", "/webhook", json_body={"url": "https://example.com/hook"})

    def metadata(stage: str) -> dict[str, str]:
        return {"stage": stage, "key": alice.api_key}

    done = alice.begin(input_lines(3), metadata=metadata("completed"))
    alice.run_chunks(done)
    alice.finalize(done)
    running = alice.begin(input_lines(9), metadata=metadata("running"))
    segments = [segment for task in plan.read(running) or [] for segment in task.segments]
    lines = [answered_line(running, n, f"r{n}", 200, "req_1", b'{"n": 1}', Usage(1, 0, 2, 0, 3)) for n in range(4)]
    results.write_seal(running, segments[0], lines[:2])
    results.write_result_part(running, 0, lines[3:])
    carry = Carry({2: (1, 0.0)}, Level(limit=0.5, at=1_800_000_000.0), {3: 2})
    batches.put_carry(running, 0, msgspec.json.encode(carry).decode())
    cancelled = alice.begin(input_lines(5), metadata=metadata("cancelling"))
    results.write_result_part(cancelled, 0, [answered_line(cancelled, 1, "r1", 200, "req_1", b"{}", Usage())])
    alice("POST", f"/batches/{cancelled}/cancel")
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    alice.create(input_lines(4), metadata=metadata("validating"))
    for batch in alice("GET", "/batches").json["data"]:
        set_batch(alice, batch["id"], expires_at=LATER)


@pytest.mark.usefixtures("upstream")
def test_what_is_stored_keeps_its_format(alice: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A field that is no longer stored, or has another name, needs the next ``FORMAT``, and code that reads both."""
    newest = STORED / f"format-{FORMAT}.json"
    begin(alice, monkeypatch)
    made = newest if os.environ.get("SNAPSHOT") == "write" else tmp_path / "made.json"
    snapshot.save(made)
    assert snapshot.fields(made) >= snapshot.fields(newest)


@pytest.mark.usefixtures("upstream")
def test_a_restore_knows_what_belongs_to_which_table(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(alice, monkeypatch)
    for table in Lost:
        items = [encode(item) for item in Table(table).scan()]  # type: ignore[arg-type]  # a name of a table
        assert items
        assert {other for other in Lost for item in items if belongs(item, other)} == {table}


@pytest.mark.parametrize("path", sorted(STORED.glob("*.json")), ids=lambda path: path.stem)
def test_what_an_older_version_began_is_finished(path: Path, upstream: Server) -> None:
    snapshot.load(path)
    apply_route(upstream.url)
    item = next(item for item in Table("batches").scan() if "metadata" in item)
    alice = Caller(item["pk"], item["metadata"]["key"])
    assert accounts.get(alice.account_id).quotas == Quotas(active_batches=7, dollars_a_day=5.0)
    assert alice("GET", "/webhook").json["url"] == "https://example.com/hook"
    known = {batch["metadata"]["stage"]: batch["id"] for batch in alice("GET", "/batches").json["data"]}
    for stage in ("running", "cancelling"):
        batches.begin_run(known[stage], 0, "run_older")  # as workers do before they store a line
    ended = {"completed": alice.batch(known["completed"])}
    for stage in ("running", "cancelling", "validating"):
        batch_id = known[stage]
        if stage == "validating":
            assert invoke("validate_batch", alice.start(batch_id))["status"] == "in_progress"
        for task in plan.read(batch_id) or []:
            assert run_chunk(msgspec.to_builtins(task))["state"] == "done"
        ended[stage] = alice.finalize(batch_id)
    assert {stage: (batch["status"], len(lines_of(alice, batch))) for stage, batch in ended.items()} == {
        "completed": ("completed", 3),
        "running": ("completed", 9),
        "cancelling": ("cancelled", 5),
        "validating": ("completed", 4),
    }
    for batch in ended.values():
        assert sorted(lines_of(alice, batch)) == [f"r{n}" for n in range(batch["request_counts"]["total"])]
    sent = [received.json["messages"][-1]["content"] for received in upstream.received]
    assert len(sent) == len(input_lines(6)) + len(input_lines(4))  # what was answered is not sent again


def lines_of(caller: Caller, batch: dict[str, str]) -> list[str]:
    ids = [batch[name] for name in ("output_file_id", "error_file_id") if batch[name]]
    return [line["custom_id"] for file_id in ids for line in caller.lines(file_id)]


def test_a_new_batch_says_its_format(alice: Caller, upstream: Server) -> None:
    assert batches.get(alice.account_id, alice.create(input_lines(1))).format == FORMAT


def test_what_a_later_version_began_waits_for_it(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    task = msgspec.to_builtins((plan.read(batch_id) or [])[0])
    set_batch(alice, batch_id, format=FORMAT + 1)
    with pytest.raises(UnavailableError, match="later version"):
        run_chunk(task)
    with pytest.raises(UnavailableError, match="later version"):
        invoke("finalize_batch", alice.round(batch_id, "done"))
    assert alice("GET", f"/batches/{batch_id}").status == 503
    assert alice("GET", "/batches").json["data"][0]["status"] == "in_progress"
    set_batch(alice, batch_id, format=FORMAT)
    assert run_chunk(task)["state"] == "done"
    assert alice.finalize(batch_id)["status"] == "completed"
