"""A chunk through a provider's batch API: each line once and in order, and submitted once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.results.parts import decode_part
from nightshift.routes.route import BatchApi
from nightshift.submissions import collection, decision
from nightshift.submissions.decision import CANCEL_SECONDS, LATE_FILES_SECONDS, poll_pause
from nightshift.submissions.provider import LineError, ProviderError
from nightshift.submissions.steps import DELETE_TRIES

from tests.unit.chunks.fakes import CrashError, Store
from tests.unit.submissions.provider import Provider, World, answered


def world(lines: int = 12, **changes: Any) -> World:
    provider = {name: changes.pop(name) for name in list(changes) if name in Provider.__dataclass_fields__}
    return World(Store(lines), Provider(**provider), **changes)


def done(one: World) -> list[dict[str, Any]]:
    """Run to the end; the lines of both files."""
    result = one.run()
    assert result is not None
    assert result.state == "done"
    one.store.assert_each_line_once_and_in_order()
    return one.store.results()


def test_a_chunk_goes_through_one_batch() -> None:
    one = world()
    lines = done(one)
    assert [line["response"]["body"]["choices"][0]["n"] for line in lines] == list(range(12))
    assert {line["response"]["body"]["model"] for line in lines} == {"shown"}
    assert set(one.provider.sent.values()) == {1}
    assert len(one.provider.jobs) == 1
    assert one.provider.files == {}, "the provider's copies are deleted"
    assert one.started == 1


def test_the_provider_gets_our_numbers_and_its_name_of_the_model() -> None:
    one = world(3)
    done(one)
    [job] = one.provider.jobs.values()
    assert [line["custom_id"] for line in job.lines] == ["0", "1", "2"]
    assert {line["body"]["model"] for line in job.lines} == {"sent"}
    assert {line["url"] for line in job.lines} == {"/v1/chat/completions"}


def test_lines_are_marked_as_answered_by_the_batch_api() -> None:
    one = world(7)
    done(one)
    summaries = [summary for _, summary in one.store.sealed.values()]
    assert sum(summary.batch_lines for summary in summaries) == 7
    assert sum(summary.batch_usage.input_tokens for summary in summaries) == 14


def test_only_lines_that_come_alone_need_result_parts() -> None:
    one = world(12)
    done(one)
    assert one.store.parts == []
    late = world(12, script=lambda number, tries: answered(number, 500 if number == 6 and tries < 2 else 200))
    done(late)
    assert [[line.number for _, line in decode_part(part)] for part in late.store.parts] == [[5, 7, 8, 9], [6]]


def test_lines_too_long_for_a_seal_go_into_result_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "SEAL_BYTES", 100)
    one = world(12)
    done(one)
    assert len(one.store.parts) == 3


def test_progress_follows_the_provider_and_never_goes_back() -> None:
    one = world(12, looks=5)
    done(one)
    completed = [completed for completed, _ in one.store.counts]
    assert completed == sorted(completed)
    assert completed[0] < 12
    assert completed[-1] == 12


def test_pauses_grow() -> None:
    one = world(looks=12)
    pauses = []
    while (result := one.visit()) is not None and result.state in ("wait", "park"):
        pauses.append(result.wait_seconds)
        one.clock.now += result.wait_seconds
    assert pauses[:9] == sorted(pauses[:9])
    assert pauses[0] <= 6
    assert max(pauses) > 60


def test_a_batch_that_stops_just_before_its_end_is_not_looked_at_every_minute() -> None:
    age, looks = 3_600.0, 0
    while age < 23 * 3_600:
        age += poll_pause(50_000, age, left=age * 1e-4)
        looks += 1
    assert looks < 100


@pytest.mark.parametrize("age", [120.0, 4_000.0, 80_000.0])
def test_an_end_that_is_foreseen_is_noticed_soon_after_it(age: float) -> None:
    assert poll_pause(1_000, age, left=0) <= max(60, age / 20)
    assert poll_pause(1_000, age, left=age) == poll_pause(1_000, age)


def test_a_large_batch_is_not_looked_at_before_it_can_have_ended() -> None:
    assert [poll_pause(lines, 0) for lines in (1, 1_000, 5_000, 50_000)] == [5, 5, 20, 200]


@given(st.integers(1, 50_000), st.floats(1, 82_800))
def test_an_end_is_noticed_with_little_delay_compared_to_the_wait(lines: int, ends_at: float) -> None:
    age, looks = 0.0, 0
    while age < ends_at:
        age += poll_pause(lines, age)
        looks += 1
    assert age <= max(poll_pause(lines, 0), ends_at + max(min(ends_at, 300), ends_at / 2))
    assert looks <= 60


# --- long pauses are the sweep's -----------------------------------------------------------------------------------


def test_the_execution_sleeps_while_the_sweep_looks() -> None:
    one = world(looks=12, swept=True)
    slept = []
    while (result := one.visit()) is not None and result.state in ("wait", "park"):
        pause = result.look_seconds or result.wait_seconds
        assert result.look_seconds is None or 150 <= result.look_seconds <= result.wait_seconds <= 6 * 3600
        assert result.look_seconds is not None or result.wait_seconds < 150
        slept += [result.wait_seconds] if result.look_seconds else []
        one.clock.now += pause
    assert len(slept) > 3
    one.store.assert_each_line_once_and_in_order()


@pytest.mark.parametrize("rescue_before", [None, 7_200])
def test_an_execution_wakes_by_itself_when_the_providers_time_is_over(rescue_before: int | None) -> None:
    one = world(looks=10**6, swept=True, rescue_before=rescue_before)
    closes_at = one.expires_at - (rescue_before or 900)
    while one.provider.cancels == 0:
        assert one.clock.now < closes_at + 2
        result = one.visit()
        assert result is not None
        one.clock.now += result.wait_seconds  # nothing looks earlier
    assert one.clock.now >= closes_at


@pytest.mark.parametrize("api", [BatchApi(max_requests=5), BatchApi(max_bytes=700), BatchApi(max_queued_tokens=200)])
def test_what_does_not_fit_follows_in_the_next_batch(api: BatchApi) -> None:
    one = world(api=api)
    done(one)
    assert len(one.provider.jobs) > 1
    assert set(one.provider.sent.values()) == {1}


def test_a_line_longer_than_the_cap_is_left_to_the_provider() -> None:
    one = world(3, api=BatchApi(max_bytes=10))
    done(one)
    assert len(one.provider.jobs) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_error_of_a_line_is_its_answer(status: int) -> None:
    one = world(script=lambda number, _: answered(number, status if number == 4 else 200))
    assert [line["response"]["status_code"] for line in done(one)].count(status) == 1
    assert set(one.provider.sent.values()) == {1}


@pytest.mark.parametrize("status", [429, 500, 503, 401])
def test_an_error_of_the_moment_is_sent_again_at_most_twice(status: int) -> None:
    one = world(script=lambda number, tries: answered(number, status if number == 4 and tries < 3 else 200))
    assert all(line["response"]["status_code"] == 200 for line in done(one))
    assert one.provider.sent[4] == 3
    for_ever = world(script=lambda number, _: answered(number, status if number == 4 else 200))
    assert [line["response"]["status_code"] for line in done(for_ever)].count(status) == 1
    assert for_ever.provider.sent[4] == 3
    assert for_ever.provider.sent[5] == 1


def test_a_line_with_an_error_object_is_sent_again_and_keeps_the_providers_words() -> None:
    error = {"custom_id": "4", "response": None, "error": {"code": "oops", "message": "It broke."}}
    one = world(script=lambda number, _: error if number == 4 else answered(number))
    line = done(one)[4]
    assert line["error"] == {"code": "upstream_unreachable", "message": "It broke."}
    assert one.provider.sent[4] == 3


def test_missing_doubled_and_unknown_lines() -> None:
    def script(number: int, tries: int) -> dict[str, Any] | None:
        if number == 3:
            return None if tries == 1 else answered(3)
        return answered({5: 999, 6: 4}.get(number, number) if tries == 1 else number)

    one = world(script=script)
    done(one)
    assert one.provider.sent == {**dict.fromkeys(range(12), 1), 3: 2, 5: 2, 6: 2}


def test_a_line_that_is_never_answered_fails_and_holds_nothing() -> None:
    one = world(script=lambda number, _: None if number == 0 else answered(number))
    assert done(one)[0]["error"]["code"] == "upstream_unreachable"
    assert one.provider.sent[0] == 3


def test_a_full_queue_is_waited_for() -> None:
    refusals = iter([True, True, False])
    full = [LineError("token_limit_exceeded", "Enqueued token limit reached for gpt-4o-mini.")]
    one = world(refuse=lambda _: full if next(refusals) else [])
    done(one)
    assert len(one.provider.jobs) == 3
    assert set(one.provider.sent.values()) == {1}


def test_bad_lines_get_the_providers_own_error_and_the_rest_goes_on() -> None:
    def refuse(lines: list[dict[str, Any]]) -> list[LineError]:
        return [
            LineError("invalid_value", "No such tool.", "body.tools", place)
            for place, line in enumerate(lines, 1)
            if line["custom_id"] in ("2", "7", "11")
        ][:2]

    one = world(refuse=refuse)
    lines = done(one)
    wrong = [line for line in lines if line["response"]["status_code"] == 400]
    assert [line["custom_id"] for line in wrong] == ["id-2", "id-7", "id-11"]
    expected = {
        "message": "No such tool.",
        "type": "invalid_request_error",
        "param": "body.tools",
        "code": "invalid_value",
    }
    assert wrong[0]["response"]["body"] == {"error": expected}
    assert set(one.provider.sent.values()) == {1}


def test_bad_lines_may_be_refused_by_the_call_itself() -> None:
    refused = iter([ProviderError(400, "bad", None, [LineError("invalid", "Bad line.", None, 2)]), None])

    def before(call: str) -> None:
        if call == "create" and (error := next(refused)):
            raise error

    one = world(before=before)
    assert [line["response"]["status_code"] for line in done(one)] == [200, 400, *[200] * 10]


def test_a_refusal_without_a_line_is_tried_again() -> None:
    refusals = iter([True, False])
    one = world(refuse=lambda _: [LineError("invalid_model", "No such deployment.")] if next(refusals) else [])
    done(one)
    assert len(one.provider.jobs) == 2


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_a_batch_that_ends_early_keeps_its_answers(end: str) -> None:
    one = world(end=end, script=lambda number, tries: answered(number) if number < 6 or tries > 1 else None)
    done(one)
    assert {number for number, times in one.provider.sent.items() if times == 2} == set(range(6, 12))


def test_files_that_come_late_are_waited_for() -> None:
    late = {"left": 3}

    def before(call: str) -> None:
        if call == "read_lines" and late["left"]:
            late["left"] -= 1
            raise ProviderError(404, "No such file yet.")

    one = world(before=before)
    done(one)
    assert set(one.provider.sent.values()) == {1}


def test_files_that_never_come_are_not_waited_for_for_ever() -> None:
    gone = {"file": True}

    def before(call: str) -> None:
        if call == "read_lines" and gone["file"]:
            raise ProviderError(404, "No such file.")

    one = world(before=before)
    begun = one.clock.now
    while one.provider.sent[0] < 2:
        result = one.visit()
        assert result
        one.clock.now += result.wait_seconds
    assert one.clock.now > begun + LATE_FILES_SECONDS
    gone["file"] = False
    done(one)


@pytest.mark.parametrize("status", [0, 429, 500, 503, 401])
@pytest.mark.parametrize("call", ["upload", "create", "get", "read_lines", "delete_file"])
def test_every_call_may_fail(call: str, status: int) -> None:
    failures = {"left": 3}

    def before(name: str) -> None:
        if name == call and failures["left"]:
            failures["left"] -= 1
            raise ProviderError(status, "not now", 2.0)

    one = world(before=before)
    done(one)
    assert set(one.provider.sent.values()) == {1}
    assert failures["left"] == 0


@pytest.mark.parametrize("call", ["upload", "create", "delete_file"])
def test_an_answer_that_is_lost_submits_nothing_twice(call: str) -> None:
    failures = {"left": 1}

    def after(name: str) -> None:
        if name == call and failures["left"]:
            failures["left"] -= 1
            raise ProviderError(0, "connection lost")

    one = world(after=after)
    done(one)
    assert set(one.provider.sent.values()) == {1}
    assert one.provider.files == {}


def test_a_create_that_was_never_received_is_repeated() -> None:
    failures = {"left": 1}

    def before(name: str) -> None:
        if name == "create" and failures["left"]:
            failures["left"] -= 1
            raise ProviderError(0, "connection lost")

    one = world(before=before)
    done(one)
    assert len(one.provider.jobs) == 1


# --- the route's health -----------------------------------------------------------------------------------------------


class Calls:
    """Counts the calls to a provider, which refuses them while the key is ``revoked``."""

    def __init__(self, status: int = 401, words: str = "Incorrect API key provided.", code: str = "") -> None:
        self.count = 0
        self.revoked = True
        self._error = ProviderError(status, words, errors=[LineError(code=code)] if code else [])

    def __call__(self, _: str) -> None:
        self.count += 1
        if self.revoked:
            raise self._error


@pytest.mark.parametrize(
    "refusal",
    [Calls(), Calls(403), Calls(402), Calls(429, "You exceeded your quota.", "insufficient_quota")],
    ids=["401", "403", "402", "quota"],
)
def test_a_revoked_key_marks_the_route_and_one_visit_asks_for_all(refusal: Calls) -> None:
    first = world(before=refusal)
    second = world(before=refusal, state=first.state, clock=first.clock)
    first.visit()
    assert first.state.health.trouble is not None
    second.visit()
    asked = refusal.count
    for _ in range(50):
        assert second.visit() is not None
    assert refusal.count == asked, "it waits for the probe"
    for one in (first, second) * 10:
        result = one.visit()
        assert result is not None
        one.clock.now += result.wait_seconds
    assert first.state.health.confirmed
    assert refusal.count - asked <= 20

    refusal.revoked = False
    for one in (first, second):
        done(one)
        assert set(one.provider.sent.values()) == {1}
    assert first.state.health.trouble is None


def test_a_key_that_is_revoked_while_the_provider_works_submits_nothing_twice() -> None:
    revoked = Calls()
    revoked.revoked = False
    one = world(before=revoked)
    one.visit()
    revoked.revoked = True
    for _ in range(20):
        result = one.visit()
        assert result is not None
        one.clock.now += result.wait_seconds
    revoked.revoked = False
    done(one)
    assert len(one.provider.jobs) == 1


def test_a_key_that_is_revoked_before_the_batch_is_created_refuses_no_line() -> None:
    refused = Calls(401, "Incorrect API key provided.", "invalid_api_key")

    def before(name: str) -> None:
        if name == "create":
            refused(name)

    one = world(before=before)
    for _ in range(5):
        result = one.visit()
        assert result is not None
        one.clock.now += result.wait_seconds
    assert len(one.provider.files) == 1, "the file stays"
    refused.revoked = False
    assert {line["response"]["status_code"] for line in done(one)} == {200}


def test_a_cancel_ends_what_waits_for_a_key() -> None:
    revoked = Calls()
    one = world(before=revoked)
    one.visit()
    one.cancelled = True
    started_at = one.clock.now
    result = one.run()
    assert result
    assert result.state == "done"
    assert one.clock.now - started_at < 30


def test_a_paused_route_starts_nothing_and_is_looked_at() -> None:
    one = world(looks=100)
    one.state.control = "paused"
    result = one.visit()
    assert result is not None
    assert result.wait_seconds >= 300
    assert not one.provider.files
    one.state.control = "open"
    one.visit()
    one.state.control = "paused"
    one.provider.looks = 1
    done(one)


# --- cancel, rescue, deadline -----------------------------------------------------------------------------------------


def test_a_cancel_cancels_upstream_and_keeps_what_was_answered() -> None:
    one = world(looks=100, script=lambda number, _: answered(number) if number < 5 else None)
    for _ in range(3):
        result = one.visit()
        assert result
        one.clock.now += result.wait_seconds
    one.cancelled = True
    result = one.run()
    assert result
    assert result.state == "done"
    assert one.provider.cancels == 1
    assert one.store.safe() == set(range(5))
    assert one.provider.files == {}
    assert set(one.provider.sent.values()) == {1}


def test_a_cancel_that_comes_too_late_keeps_every_answer() -> None:
    one = world(looks=3)
    one.visit()
    one.cancelled = True
    [job] = one.provider.jobs.values()
    one.provider._end(job, "completed")
    done(one)
    assert one.provider.cancels == 0


def test_the_end_of_a_cancelled_batch_is_noticed_soon_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "LINES_PER_SECOND", 0.05)
    one = world(looks=10_000, confirms_cancel=False)
    one.visit()
    one.cancelled = True
    one.visit()
    [job] = one.provider.jobs.values()
    cancelled_at = one.clock.now
    while one.clock.now < cancelled_at + 30:
        result = one.visit()
        assert result is not None
        one.clock.now += result.wait_seconds
    one.provider._end(job, "cancelled")
    confirmed_at = one.clock.now
    assert one.run() is not None
    assert one.clock.now - confirmed_at < 40


def test_a_cancel_that_is_never_confirmed_ends_after_a_bound() -> None:
    one = world(looks=10_000, confirms_cancel=False)
    one.visit()
    one.cancelled = True
    cancelled_at = one.clock.now
    result = one.run()
    assert result
    assert result.state == "done"
    assert CANCEL_SECONDS <= one.clock.now - cancelled_at < 2 * CANCEL_SECONDS
    assert one.provider.cancels == 1


def test_a_cancel_before_anything_was_sent_sends_nothing() -> None:
    one = world(cancelled=True)
    result = one.run()
    assert result
    assert result.state == "done"
    assert not one.provider.jobs
    assert not one.provider.files


def test_what_is_not_answered_in_time_goes_on_in_real_time() -> None:
    one = world(looks=10_000, rescue_before=7_200, script=lambda number, _: answered(number) if number < 5 else None)
    assert one.run() is None
    assert one.store.safe() == set(range(5))
    assert one.clock.now < one.expires_at - 7_000
    assert one.clock.now >= one.expires_at - 7_200
    assert one.visit() is None, "it stays so"
    assert one.provider.cancels == 1


def test_without_a_rescue_a_batch_that_never_moves_ends_before_the_deadline() -> None:
    one = world(looks=10_000, script=lambda number, _: answered(number) if number < 5 else None)
    result = one.run()
    assert result
    assert result.state == "done"
    assert one.store.safe() == set(range(5))
    assert one.clock.now < one.expires_at


# --- crashes ----------------------------------------------------------------------------------------------------------

CALLS = [
    "upload",
    "create",
    "get",
    "read_lines",
    "line",
    "delete_file",
    "save",
    "put_lines",
    "write_result_part",
    "seal",
]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_nothing_is_lost_or_submitted_twice_whatever_crashes(data: st.DataObject) -> None:
    """A worker is killed before or after any call, again and again, while calls fail and answers are lost."""
    one = world(data.draw(st.integers(1, 17)), api=BatchApi(max_requests=data.draw(st.sampled_from([4, 50_000]))))
    faults = data.draw(
        st.lists(
            st.tuples(st.sampled_from(CALLS), st.sampled_from(["before", "after"]), st.sampled_from(["kill", "lose"])),
            max_size=8,
        )
    )

    lost_deletions = sum(call == "delete_file" and how == "lose" for call, _, how in faults)

    def hook(moment: str) -> Any:
        def strike(call: str) -> None:
            for fault in [("kill", CrashError()), ("lose", ProviderError(0, "lost"))]:
                provider_call = call in ("upload", "create", "get", "read_lines", "line", "delete_file")
                if (call, moment, fault[0]) in faults and (fault[0] == "kill" or provider_call):
                    faults.remove((call, moment, fault[0]))
                    raise fault[1]

        return strike

    for target in (one.provider, one.submissions, one.store):
        target.before, target.after = hook("before"), hook("after")
    for _ in range(600):
        try:
            result = one.visit()
        except CrashError:
            # A worker that is killed gives no claim back.
            one.submissions.claimed_until = one.clock.now + 40
            continue
        assert result
        if result.state == "done":
            break
        one.clock.now += result.wait_seconds
    one.store.assert_each_line_once_and_in_order()
    assert set(one.provider.sent.values()) == {1}
    assert one.provider.files == {} or lost_deletions >= DELETE_TRIES
