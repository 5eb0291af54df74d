"""A run sends every line of its chunk, and stores each result once and in order."""

import asyncio
import json
import random
import time

import pytest
from nightshift.chunks.chunk import SliceResult
from nightshift.upstream.answer import MAX_TRIES, Answer, Failure

from tests.unit.chunks.fakes import (
    BROKEN,
    OK,
    REFUSED,
    Store,
    Upstream,
    new_run,
    run,
    run_to_the_end,
)


@pytest.mark.parametrize("lines", [1, 4, 5, 6, 100])
def test_each_line_is_answered_once_in_order(lines: int) -> None:
    store, upstream = Store(lines), Upstream()
    assert run(store, upstream) == SliceResult("done")
    store.assert_each_line_once_and_in_order()
    assert sorted(upstream.sends) == list(range(lines))
    assert store.counts[-1] == (lines, 0)


def test_each_side_sees_its_own_model_name() -> None:
    store, upstream = Store(3), Upstream()
    run(store, upstream)
    assert {json.loads(body)["model"] for body in upstream.bodies} == {"sent"}
    assert {line["response"]["body"]["model"] for line in store.results()} == {"shown"}


def test_a_try_after_an_answer_has_a_new_key() -> None:
    store, upstream = Store(3), Upstream(lambda _, tries: OK if tries == 3 else BROKEN)
    run(store, upstream)
    for line in store.results():
        keys = upstream.request_ids[int(line["custom_id"].removeprefix("id-"))]
        assert keys == {line["id"], f"{line['id']}-1", f"{line['id']}-2"}


def test_a_try_without_an_answer_keeps_its_key() -> None:
    store, upstream = Store(2), Upstream(lambda _, tries: OK if tries == 3 else Answer(failure="broken"))
    run(store, upstream)
    assert {line["id"] for line in store.results()} == set().union(*upstream.request_ids.values())


@pytest.mark.parametrize("concurrency", [1, 2, 7, 64])
def test_requests_in_flight_reach_the_limit(concurrency: int) -> None:
    store, upstream = Store(200, 50), Upstream(seconds=0.002)
    run(store, upstream, concurrency=concurrency)
    assert upstream.peak == concurrency


def test_failures_never_pass_the_limit() -> None:
    chance = random.Random(7)
    answers = [OK, OK, REFUSED, BROKEN, Answer(failure="timeout"), Answer(failure="connect")]
    store, upstream = Store(150), Upstream(lambda _, __: chance.choice(answers), seconds=0.001)
    run_to_the_end(store, upstream, concurrency=16)
    assert upstream.peak <= 16
    store.assert_each_line_once_and_in_order()


def test_late_answers_come_out_in_order() -> None:
    store = Store(60, 20)

    async def send(body: bytes, _: str) -> Answer:
        await asyncio.sleep(0.001 * ((61 - json.loads(body)["n"]) % 7))
        return OK

    asyncio.run(new_run(store, send).run())
    store.assert_each_line_once_and_in_order()


def test_segments_are_sealed_during_a_run() -> None:
    store, upstream = Store(20, 5), Upstream(seconds=0.01)
    seen: list[int] = []
    upstream.on_send = lambda line: seen.append(len(store.sealed)) if line == 19 else None
    run(store, upstream, concurrency=2)
    assert seen[0] >= 2


def test_progress_counts_stored_lines_only() -> None:
    store, upstream = Store(50, 10), Upstream(seconds=0.003)
    behind: list[tuple[int, int]] = []

    def check(operation: str) -> None:
        if operation == "record_progress" and sum(store.counts[-1]) > len(store.safe()):
            behind.append(store.counts[-1])

    store.after = check
    run(store, upstream, concurrency=3)
    assert not behind
    totals = [sum(count) for count in store.counts]
    assert totals == sorted(totals)


# --- what an answer means for its line ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_server_error_is_tried_five_times(status: int) -> None:
    store, upstream = Store(2), Upstream(lambda _, __: Answer(status, BROKEN.body))
    assert run(store, upstream).state == "done"
    assert upstream.tries == {0: MAX_TRIES, 1: MAX_TRIES}
    for line in store.results():
        assert line["response"]["status_code"] == status
        assert line["response"]["body"] == {"error": {"message": "oops"}}
        assert line["error"] is None
    assert store.counts[-1] == (0, 2)


def test_a_passing_error_leaves_no_trace() -> None:
    store, upstream = Store(10), Upstream(lambda _, tries: BROKEN if tries < MAX_TRIES else OK)
    run(store, upstream)
    assert store.counts[-1] == (10, 0)


@pytest.mark.parametrize("refusal", [REFUSED, Answer(503, b"{}"), Answer(failure="connect")])
def test_a_refusal_is_retried_without_end(refusal: Answer) -> None:
    store, upstream = Store(6), Upstream(lambda _, tries: refusal if tries <= 3 * MAX_TRIES else OK)
    run_to_the_end(store, upstream)
    store.assert_each_line_once_and_in_order()
    assert all(tries == 3 * MAX_TRIES + 1 for tries in upstream.tries.values())
    assert store.counts[-1] == (6, 0)


def test_a_refusal_is_no_try() -> None:
    store, upstream = Store(1), Upstream(lambda _, tries: REFUSED if tries % 2 else BROKEN)
    run_to_the_end(store, upstream)
    assert upstream.tries == {0: 2 * MAX_TRIES}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 302])
def test_other_errors_are_final_at_once(status: int) -> None:
    store, upstream = Store(3), Upstream(lambda _, __: Answer(status, b'{"error":{"message":"no"}}'))
    run(store, upstream)
    assert upstream.tries == {0: 1, 1: 1, 2: 1}
    assert {line["response"]["status_code"] for line in store.results()} == {status}
    assert store.counts[-1] == (0, 3)


@pytest.mark.parametrize(
    ("failure", "tries", "code"),
    [
        ("timeout", MAX_TRIES, "request_timeout"),
        ("broken", MAX_TRIES, "upstream_unreachable"),
        ("not_json", MAX_TRIES, "upstream_unreachable"),
        ("too_long", 1, "upstream_unreachable"),
    ],
)
def test_a_failed_line_has_its_code(failure: Failure, tries: int, code: str) -> None:
    store, upstream = Store(2), Upstream(lambda _, __: Answer(failure=failure))
    run(store, upstream)
    assert upstream.tries == {0: tries, 1: tries}
    for line in store.results():
        assert line["response"] is None
        assert line["error"]["code"] == code


def test_completed_and_failed_are_counted() -> None:
    store = Store(30, 7)
    run(store, Upstream(lambda line, _: OK if line % 3 else Answer(400, b"{}")))
    store.assert_each_line_once_and_in_order()
    assert store.counts[-1] == (20, 10)


# --- the end of a batch ------------------------------------------------------------------------------------------


def test_a_cancel_stops_sending() -> None:
    store, upstream = Store(500, 50), Upstream(seconds=0.002)

    def cancel_after_some(line: int) -> None:
        if len(upstream.sends) == 60:
            store.is_in_progress = False

    upstream.on_send = cancel_after_some
    result = run(store, upstream, concurrency=10)
    assert result == SliceResult("done")
    assert len(upstream.sends) < 300
    assert len(store.safe()) == len(upstream.sends)  # also those in flight, which had time to finish
    assert store.counts[-1] == (len(upstream.sends), 0)


def test_a_cancel_waits_a_bounded_time() -> None:
    store = Store(40)
    answered = 0

    async def send(_: bytes, __: str) -> Answer:
        nonlocal answered
        if answered == 12:
            store.is_in_progress = False
            await asyncio.Event().wait()  # it is never answered
        answered += 1
        return OK

    assert asyncio.run(new_run(store, send).run()) == SliceResult("done")
    assert len(store.safe()) == 12


def test_an_expired_batch_sends_nothing() -> None:
    store, upstream = Store(10), Upstream()
    assert run(store, upstream, expires_at=time.time() - 1) == SliceResult("done")
    assert upstream.sends == []


def test_an_expiry_midway_keeps_answers() -> None:
    store, upstream = Store(2_000, 50), Upstream(seconds=0.01)
    deadline = time.time() + 0.1
    late: list[int] = []
    upstream.on_send = lambda line: late.append(line) if time.time() > deadline + 0.01 else None
    assert run(store, upstream, concurrency=10, expires_at=deadline) == SliceResult("done")
    assert late == []
    assert 0 < len(upstream.sends) < 2_000
    assert len(store.safe()) == len(upstream.sends)


def test_an_expiry_ends_a_refused_batch() -> None:
    store, upstream = Store(10), Upstream(lambda _, __: REFUSED)
    assert run_to_the_end(store, upstream, expires_at=time.time() + 0.1)[-1] == SliceResult("done")
    assert store.safe() == set()
