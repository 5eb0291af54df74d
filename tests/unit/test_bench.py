"""Every benchmark is run by make, explained in the README, and shown as measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.dynamodb import size_of, units
from bench.meter import Usage

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
README = (BENCH / "README.md").read_text()
SUBJECTS = sorted(
    path.stem for path in BENCH.glob("*.py") if "report.publish(" in path.read_text() and path.stem != "report"
)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_has_text_and_results(subject: str) -> None:
    assert f"[{subject}]({subject}.py)" in README
    assert (report.RESULTS / f"{subject}.json").exists()
    assert subject in report.SUBJECTS


def test_make_bench_runs_all_but_memory_and_api() -> None:
    makefile = (ROOT / "Makefile").read_text()
    line = re.search(r"^bench: (.*?)##", makefile, re.MULTILINE)
    assert line is not None
    alone = {word.removeprefix("bench-") for word in line[1].split()} - {"simulated"}
    side_by_side = set(re.findall(r"python -m bench\.(\w+)(?=[ ;])", makefile))
    # scale publishes cost for its largest batch.
    assert alone | side_by_side == set(SUBJECTS) - {"memory", "api", "cost"}
    assert not alone & side_by_side


def test_readme_tables_match_the_results() -> None:
    assert README.endswith(f"{report.MARK}\n\n{report.tables()}")


def test_usage_is_added_and_subtracted() -> None:
    one, two = Usage(transitions=3, log_bytes=7), Usage(transitions=5)
    one.invocations["Api"] = 2
    two.seconds["Api"] = 0.5
    both = one.plus(two, 2)
    assert (both.transitions, both.log_bytes, both.invocations["Api"], both.seconds["Api"]) == (13, 7, 2, 1.0)
    assert both.plus(two, -2) == one.plus(Usage(seconds=two.seconds), 0)
    assert one.transitions == 3


# --- DynamoDB's units ---------------------------------------------------------------------------------------------

OPEN = {"pk": {"S": "a"}, "sk": {"S": "b"}, "open": {"S": "a"}, "status": {"S": "validating"}}
LONG = OPEN | {"text": {"S": "x" * 2000}}


def taken(operation: str, asked: dict[str, Any], told: dict[str, Any] | None = None) -> float:
    return units(operation, json.dumps(asked).encode(), json.dumps(told or {}).encode())


def test_items_have_the_size_that_aws_documents() -> None:
    assert size_of({"name": {"S": "né"}, "n": {"N": "-12.5"}, "b": {"BOOL": True}}) == 4 + 3 + 1 + 3 + 1 + 1
    assert size_of({"m": {"M": {"k": {"S": "v"}}}, "l": {"L": [{"NULL": True}]}}) == 1 + 3 + 1 + 1 + 1 + 1 + 3 + 1 + 1


@pytest.mark.parametrize(
    ("operation", "asked", "told", "expected"),
    [
        ("GetItem", {"ConsistentRead": True}, {"Item": OPEN}, 1),
        ("GetItem", {}, {}, 0.5),
        ("Query", {}, {"Items": [LONG] * 3}, 1),
        ("PutItem", {"Item": {"pk": {"S": "a"}}}, {}, 1),
        ("PutItem", {"Item": LONG}, {}, 3),
        ("DeleteItem", {"Key": {"pk": {"S": "a"}}}, {}, 1),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"Item": {"pk": {"S": "a"}}}}, {"Delete": {}}]}, {}, 4),
    ],
)
def test_calls_take_the_units_that_aws_documents(
    operation: str, asked: dict[str, Any], told: dict[str, Any], expected: float
) -> None:
    assert taken(operation, asked, told) == expected


@pytest.mark.parametrize(
    ("update", "expected"),
    [("SET #status = :status", 3), ("SET #look_at = :look_at", 2), ("SET #status = :status REMOVE #open", 3)],
)
def test_only_what_the_index_has_is_written_to_it(update: str, expected: float) -> None:
    asked = {
        "UpdateExpression": update,
        "ExpressionAttributeNames": {f"#{name}": name for name in ("status", "look_at", "open")},
    }
    assert taken("UpdateItem", asked, {"Attributes": LONG}) == expected
