"""Whom an answer blames: its line, or the route."""

import pytest
from nightshift.chunks.breaker import DOWN_REFUSALS, GOOD_FOR_EACH_REFUSAL, TO_BREAK, TO_REFUSE, Breaker
from nightshift.upstream.answer import Answer, Failure

OK = Answer(200, b"{}")
REFUSED = Answer(429, b"{}")


def error(status: int, message: str = "", code: str = "") -> Answer:
    return Answer(status, b'{"error":{"message":"%b","code":"%b"}}' % (message.encode(), code.encode()))


@pytest.mark.parametrize(
    "answer",
    [
        error(401),
        error(402),
        error(403),
        error(404),
        error(429, code="insufficient_quota"),
        Answer(failure="dns"),
        Answer(failure="tls"),
    ],
)
def test_a_broken_route_is_found_after_a_few_answers(answer: Answer) -> None:
    breaker = Breaker()
    breaker.verdict(0, 1, OK)
    for line in range(1, TO_BREAK):
        assert breaker.verdict(line, 1, answer) == "route"
        assert breaker.trouble is None
    assert breaker.verdict(9, 1, answer) == "route"
    assert breaker.trouble is not None
    assert breaker.trouble.status == answer.status


def test_a_line_whose_neighbours_are_answered_keeps_its_error() -> None:
    breaker = Breaker()
    assert breaker.verdict(1, 1, error(404)) == "route"
    breaker.verdict(2, 1, OK)
    assert breaker.verdict(1, 2, error(404)) == "final"
    assert breaker.trouble is None


def test_a_line_alone_blames_the_route() -> None:
    breaker = Breaker()
    assert [breaker.verdict(1, tries, error(404, "gone")) for tries in (1, 2, 3)] == ["route"] * 3
    assert breaker.trouble is not None
    assert breaker.trouble.words == "gone"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_error_of_the_request_is_final(status: int) -> None:
    assert Breaker().verdict(1, 1, error(status)) == "final"


def test_a_request_that_is_too_large_for_the_limit_is_final() -> None:
    words = "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 50000."
    assert Breaker().verdict(1, 1, error(429, words, "rate_limit_exceeded")) == "final"


def test_a_line_that_is_refused_while_all_others_are_answered_is_final() -> None:
    breaker = Breaker()
    for _ in range(TO_REFUSE - 1):
        assert breaker.verdict(1, 1, REFUSED) == "not_now"
        for line in range(GOOD_FOR_EACH_REFUSAL + 3):
            breaker.verdict(10 + line, 1, OK)
    assert breaker.verdict(1, 1, REFUSED) == "final"


def test_in_a_storm_of_refusals_no_line_is_given_up() -> None:
    breaker = Breaker()
    for turn in range(1_000):
        assert breaker.verdict(turn % 7, 1, REFUSED) == "not_now"
        breaker.verdict(100, 1, OK)


@pytest.mark.parametrize("failure", ["dns", "tls"])
def test_a_wrong_address_is_never_the_lines_fault(failure: Failure) -> None:
    breaker = Breaker()
    for _ in range(TO_BREAK):
        assert breaker.verdict(1, 1, Answer(failure=failure)) == "route"
    assert breaker.trouble is not None
    assert breaker.trouble.kind == "address"


def test_a_name_that_fails_now_and_then_breaks_nothing() -> None:
    breaker = Breaker()
    for _ in range(3 * TO_BREAK):
        assert breaker.verdict(1, 1, Answer(failure="dns")) == "route"
        breaker.verdict(2, 1, OK)
    assert breaker.trouble is None


@pytest.mark.parametrize(
    ("answer", "is_down"),
    [(Answer(failure="connect"), True), (error(503, "overloaded"), True), (REFUSED, False)],
)
def test_who_never_answers_is_down(answer: Answer, is_down: bool) -> None:
    breaker = Breaker()
    assert not breaker.is_down(answer, DOWN_REFUSALS - 1)
    assert breaker.is_down(answer, DOWN_REFUSALS) == is_down
    assert (breaker.trouble is not None and breaker.trouble.kind == "down") == is_down
