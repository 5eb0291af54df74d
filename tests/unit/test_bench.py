"""Every benchmark is run by make, explained in the README, and shown as measured."""

import re
from pathlib import Path

import pytest

from bench import report

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


def test_make_bench_runs_all_but_memory() -> None:
    makefile = (ROOT / "Makefile").read_text()
    line = re.search(r"^bench: (.*?)##", makefile, re.MULTILINE)
    assert line is not None
    alone = {word.removeprefix("bench-") for word in line[1].split()} - {"simulated"}
    side_by_side = set(re.findall(r"python -m bench\.(\w+)(?=[ ;])", makefile))
    # scale publishes cost for its largest batch.
    assert alone | side_by_side == set(SUBJECTS) - {"memory", "cost"}
    assert not alone & side_by_side


def test_readme_tables_match_the_results() -> None:
    assert README.endswith(f"{report.MARK}\n\n{report.tables()}")
