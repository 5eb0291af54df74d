"""Tables and steps: plain text for programs, rich's for people, and words of others are only words."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import nightshift_cli
import pytest
from nightshift_cli import progress, show

ID = "batch_0198ac9817ad7b2e8a0dd19dd9b3c5aa"
ROWS = [("ID", "STATUS", "MODEL"), (ID, "in_progress", None), ("batch_2", "failed", "12 completed of 99")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    for name in ("CI", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    streams = SimpleNamespace(stdout=Terminal(), stderr=Terminal())
    for module in (show, progress):
        monkeypatch.setattr(module, "sys", streams)
    return streams


def text(lines: list[str]) -> list[str]:
    """The lines without their styles."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]


def test_a_pipe_gets_plain_text() -> None:
    assert show.table(ROWS) == [
        "ID                                      STATUS       MODEL",
        "batch_0198ac9817ad7b2e8a0dd19dd9b3c5aa  in_progress  -",
        "batch_2                                 failed       12 completed of 99",
    ]


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
@pytest.mark.usefixtures("terminal")
def test_so_does_ci_even_with_a_terminal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert show.table(ROWS)[0] == "ID                                      STATUS       MODEL"


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_a_head_that_stands_out() -> None:
    head, rule, *lines = show.table(ROWS)
    assert "\x1b[1m" in head
    assert set(rule) == {"─"}
    assert not any("\x1b" in line for line in lines)
    assert [line.split()[0] for line in text([head, *lines])] == ["ID", ID, "batch_2"]


@pytest.mark.usefixtures("terminal")
def test_fields_of_one_thing_have_no_head() -> None:
    assert text(show.table([("id", ID), ("status", "failed")], has_head=False)) == [f"id      {ID}", "status  failed"]


@pytest.mark.usefixtures("terminal")
def test_words_of_others_have_no_effect() -> None:
    head, _, line = show.table([("WORDS",), ("\x1b[2J[red]x[/red] :smile: [link=u]y\r\n\u202e",)])
    assert line == "\ufffd[2J[red]x[/red] :smile: [link=u]y\ufffd\ufffd\ufffd"
    assert text([head]) == ["WORDS"]


@pytest.mark.parametrize("columns", ["1", "40", "61"])
@pytest.mark.usefixtures("terminal")
def test_lines_break_between_words_alone(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    drawn = text(show.table(ROWS))
    assert {ID, "in_progress", "12", "completed", "of", "99"} <= set(" ".join(drawn).split())
    assert len(drawn) > 4


@pytest.mark.usefixtures("terminal")
def test_a_bar_of_a_timeline_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    bar = " " * 30 + "███"
    assert bar in text(show.table([("STEP", ""), ("a b c d e f g", bar)]))[2]


@pytest.mark.usefixtures("terminal")
def test_no_rows_are_no_lines() -> None:
    assert show.table([], has_head=False) == []


def test_there_is_one_way_to_make_a_table() -> None:
    folder = Path(nightshift_cli.__file__).parent
    assert [path.name for path in folder.rglob("*.py") if "rich.table" in path.read_text()] == ["show.py"]


def three_steps() -> None:
    with progress.Steps(total=3) as steps:
        steps.begin("one")
        steps.begin("two")
        steps.begin("[red]three\x1b[2J")
        steps.describe("[red]four\x1b[2J")


def test_a_terminal_shows_the_step_that_goes_on(terminal: SimpleNamespace) -> None:
    three_steps()
    assert terminal.stdout.getvalue() == ""
    shown = terminal.stderr.getvalue()
    assert "[red]four\ufffd[2J" in shown
    assert "\x1b[2K" in shown.partition("four")[2], "it disappears"


def test_a_pipe_sees_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    three_steps()
    assert capsys.readouterr() == ("", "")
