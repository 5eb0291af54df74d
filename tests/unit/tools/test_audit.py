"""What the audits of the dependencies answer, and what that means."""

import pytest

from tools.audit import AUDITS, outcome

# As uv 0.13 and npm 10 write them.
NO_OSV = (
    "error: Request failed after 3 retries\n  cause: error sending request for url (https://api.osv.dev/v1/querybatch)"
)
NO_NPM = (
    "npm warn audit 405 Method Not Allowed - POST https://…/advisories/bulk\nnpm error audit endpoint returned an error"
)


@pytest.mark.parametrize("words", [NO_OSV, NO_NPM])
@pytest.mark.parametrize("status", [1, 2])
def test_a_database_that_cannot_be_reached_is_no_finding(status: int, words: str) -> None:
    assert outcome(status, words) == "unreachable"


def test_only_a_clean_answer_is_clean() -> None:
    assert outcome(0, "found 0 vulnerabilities") == "clean"
    assert outcome(1, "# npm audit report\n\nminimist  <0.2.4\nSeverity: critical") == "vulnerable"
    assert outcome(2, "error: unexpected argument '--frozen' found") == "vulnerable"


def test_every_lock_file_is_audited() -> None:
    assert all(list(folder.glob("*lock*")) for _, folder in AUDITS)
