"""Whether an answer says something of its line, or of the route that all lines share.

A revoked key (401, 403), no credit (402), a deployment that is gone (404) and a used-up quota concern every line. Such
an answer is a line's own only if the upstream has answered other lines well meanwhile. A host without a name or a
certificate is never a line's fault. Nothing here reads a clock.
"""

from typing import Literal

from msgspec import Struct

from nightshift.routes.health import Trouble, trouble_of
from nightshift.upstream.answer import FAILURES, Answer, Verdict, error_words, judge

_OF_ROUTE = frozenset({401, 402, 403, 404})
# So many answers in a row that blame the route, without a good one between, break it.
TO_BREAK = 3
# A line that was refused so often, while so many times more answers were good, is refused for itself.
TO_REFUSE, GOOD_FOR_EACH_REFUSAL = 10, 20

# So many refusals in a row have lowered the limit to one request, and have lasted half a minute or more.
DOWN_REFUSALS = 14

Blame = Literal["line", "unclear", "route"]


class _Refused(Struct):
    times: int
    good_before: int
    refusals_before: int


class Breaker:
    """What one run has seen of its route. ``trouble`` is why the route is at fault, once that is certain.

    Example:
        verdict = breaker.verdict(line.number, line.tries + 1, answer)
    """

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self._good = self._refusals = self._in_a_row = 0
        self._blamed_at: dict[int, int] = {}
        self._refused: dict[int, _Refused] = {}

    def verdict(self, line: int, tries: int, answer: Answer) -> Verdict | Literal["route"]:
        """What the answer means for its line, as ``answer.judge`` has it; ``route`` if it says more of the route."""
        verdict = judge(answer, tries)
        if answer.failure is None and answer.status < 300:
            self._good += 1
            self._in_a_row = 0
        elif _is_of_route(answer):
            blame = self._blame(line, answer)
            if blame == "route" and self.trouble is None:
                self.trouble = _trouble(answer)
            return "final" if blame == "line" else "route"
        elif verdict == "not_now" and self._is_of_line(line, answer):
            return "final"
        return verdict

    def is_down(self, answer: Answer, refusals: int) -> bool:
        """Whether, after so many ``refusals`` in a row, ``answer`` says that nobody is there: that is a trouble too."""
        if self.trouble is None and refusals >= DOWN_REFUSALS and (answer.failure == "connect" or answer.status == 503):
            self.trouble = _trouble(answer)
        return self.trouble is not None

    def _blame(self, line: int, answer: Answer) -> Blame:
        """Whom an answer that may be the route's blames; ``unclear`` means that the line is to be sent again."""
        before = self._blamed_at.setdefault(line, self._good)
        if self._good > before and answer.failure is None:
            return "line"
        self._in_a_row += 1
        return "route" if self._in_a_row >= TO_BREAK else "unclear"

    def _is_of_line(self, line: int, answer: Answer) -> bool:
        """Whether a refusal (429) is the line's own answer, because the line could not be taken at any time."""
        self._refusals += 1
        if answer.status == 429 and b"request too large" in answer.body[:4000].lower():
            return True
        own = self._refused.setdefault(line, _Refused(0, self._good, self._refusals - 1))
        own.times += 1
        good = self._good - own.good_before
        of_all = self._refusals - own.refusals_before
        return answer.status == 429 and own.times >= TO_REFUSE and good >= GOOD_FOR_EACH_REFUSAL * of_all


def _is_of_route(answer: Answer) -> bool:
    """Whether the answer may say something of the route."""
    if answer.failure in ("dns", "tls"):
        return True
    if answer.status == 429:
        return b"insufficient_quota" in answer.body[:4000]
    return answer.status in _OF_ROUTE


def _trouble(answer: Answer) -> Trouble:
    words = FAILURES[answer.failure][1] if answer.failure else error_words(answer.body)
    return trouble_of(answer.status, words)
