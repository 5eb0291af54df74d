import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.routes import health as healths
from nightshift.routes.health import Health, Kind, trouble_of

KEY_REVOKED = trouble_of(401, "Incorrect API key provided.")


def suspect() -> Health:
    return healths.reported(Health(), KEY_REVOKED, "w1", 100.0)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (401, "Incorrect API key", "key"),
        (403, "Forbidden", "key"),
        (0, "the secret nightshift/openai cannot be read", "key"),
        (402, "Payment required", "quota"),
        (429, '{"error":{"code":"insufficient_quota"}}', "quota"),
        (404, "The model does not exist", "address"),
        (0, "certificate verify failed", "address"),
        (0, "Name or service not known", "address"),
        (0, "connection refused", "down"),
        (503, "overloaded", "down"),
    ],
)
def test_status_and_words_tell_the_kind(status: int, words: str, kind: Kind) -> None:
    assert trouble_of(status, words).kind == kind


def test_words_are_one_short_line_without_keys() -> None:
    words = "Incorrect API key provided: sk-proj-abc*****xyz.\nBearer abc.def " + "x " * 600
    shown = trouble_of(401, words).words
    assert len(shown) <= 500
    assert "sk-proj" not in shown
    assert "abc" not in shown
    assert "\n" not in shown
    assert shown.startswith("Incorrect API key provided:")


def test_first_report_is_a_suspicion_only() -> None:
    health = suspect()
    assert health.state == "suspect"
    assert not healths.may_send(health, "w1", is_running=True)
    assert healths.may_send(health, "w2", is_running=True)
    assert not healths.may_send(health, "w3", is_running=False)


def test_second_worker_confirms() -> None:
    health = healths.reported(suspect(), KEY_REVOKED, "w2", 101.0)
    assert health.state == "broken"
    assert health.since == 100.0
    assert not healths.may_send(health, "w3", is_running=True)


def test_same_worker_confirms_nothing() -> None:
    assert healths.reported(suspect(), KEY_REVOKED, "w1", 101.0).state == "suspect"


def test_failed_probes_grow_the_pause() -> None:
    health = suspect()
    pauses = []
    for number in range(10):
        now = health.probe_at
        assert healths.may_probe(health, now)
        health = healths.claimed(health, f"p{number}", now, 60.0)
        assert health.state == "probing"
        assert not healths.may_probe(health, now)
        health = healths.reported(health, KEY_REVOKED, f"p{number}", now + 1.0)
        assert health.state == "broken"
        pauses.append(health.probe_at - now - 1.0)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]


def test_a_lost_prober_is_followed_by_another() -> None:
    health = healths.claimed(suspect(), "p", 105.0, 60.0)
    assert not healths.may_probe(health, 164.0)
    assert healths.may_probe(health, 165.0)


def test_an_answer_makes_it_healthy() -> None:
    health = healths.answered(healths.claimed(suspect(), "p", 105.0, 60.0), 106.0)
    assert health == Health(since=106.0, revision=3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["report", "claim", "answer"]), st.floats(0, 99))))
def test_one_prober_at_a_time_and_a_way_back(steps: list[tuple[str, str, float]]) -> None:
    health, now = Health(), 0.0
    for worker, step, seconds in steps:
        now += seconds
        before = health
        if step == "report":
            health = healths.reported(health, KEY_REVOKED, worker, now)
        elif step == "claim" and healths.may_probe(health, now):
            assert before.prober is None or now >= before.probe_until
            health = healths.claimed(health, worker, now, 60.0)
        elif step == "answer" and health.trouble is not None:
            health = healths.answered(health, now)
        assert health.revision - before.revision in (0, 1)
        assert health.trouble is None or healths.may_probe(health, now + healths.LONGEST_PAUSE)
