"""Batches and tables as lines of text: drawn by rich on a terminal, plain in a pipe, a file and a CI log."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO

from nightshift_cli.resources import Batch, FileError


def as_json(content: object) -> str:
    return json.dumps(content, indent=2)


def plain(value: object) -> str:
    """``value`` as text without control characters, because much of it was written by others."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream while it is written. Some CI systems have terminals, but no such person."""
    return stream.isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb"


def width() -> int:
    """How many characters a line of the terminal has; many elsewhere."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 200


def table(rows: Iterable[Sequence[object]], has_head: bool = True) -> list[str]:
    """The rows as lines, each column as wide as its widest cell. The first row is the head, if it ``has_head``."""
    cells = [[plain("-" if cell is None else cell) for cell in row] for row in rows]
    if cells and is_terminal(sys.stdout):
        return _drawn(cells, has_head)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _drawn(cells: list[list[str]], has_head: bool) -> list[str]:
    """The cells for the terminal. Lines break between words alone, however narrow it is: a word may be an id."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = list(zip(*cells, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    # What a cell begins with is its first word's, so that bars keep their places.
    words = [
        max((cell_len(word) for cell in column for word in re.findall(r"^ *\S+|\S+", cell)), default=0)
        for column in columns
    ]
    console = Console(file=sys.stdout)
    gaps = 2 * (len(columns) - 1)
    widths = _fitted(widths, words, console.width - gaps)
    console.width = sum(widths) + gaps
    drawn = Table(box=SIMPLE_HEAD, show_header=has_head, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    # As Text, in which markup has no effect.
    head, *rest = [[Text(cell) for cell in row] for row in (cells if has_head else [[""] * len(columns), *cells])]
    for name, width in zip(head, widths, strict=True):
        drawn.add_column(name, width=width, overflow="fold")
    for row in rest:
        drawn.add_row(*row)
    with console.capture() as captured:
        console.print(drawn)
    return [line.rstrip() for line in captured.get().splitlines()]


def _fitted(widths: list[int], least: list[int], room: int) -> list[int]:
    """The widths, of which the widest are made narrower until all fit; none is made narrower than its ``least``."""
    fitted = list(widths)
    while sum(fitted) > room and fitted != least:
        wider = [place for place, width in enumerate(fitted) if width > least[place]]
        fitted[max(wider, key=fitted.__getitem__)] -= 1
    return fitted


def moment(timestamp: int) -> str:
    """A Unix time in the user's time zone."""
    return datetime.fromtimestamp(timestamp).astimezone().isoformat(sep=" ")


def counts(batch: Batch) -> str:
    """The batch's counts in words; empty before its lines are counted."""
    counted = batch.get("request_counts")
    if not counted:
        return ""
    return f"{counted['completed']} completed, {counted['failed']} failed, {counted['total']} total"


def batch(found: Batch) -> list[str]:
    """Every field that is set, one on a line; then the problems of the input file."""
    rows = [(name, _cell(name, value, found)) for name, value in found.items() if value is not None]
    errors = found.get("errors")
    problems = errors["data"] if errors else []
    shown = table((row for row in rows if row[0] not in ("object", "errors")), has_head=False)
    return shown + file_errors(problems)


def batches(found: Iterable[Batch]) -> list[str]:
    """A table of batches with a head."""
    head = ("ID", "STATUS", "MODEL", "REQUESTS", "CREATED")
    rows = [
        (one["id"], one["status"], one.get("model"), counts(one) or None, moment(one["created_at"])) for one in found
    ]
    return table([head, *rows])


def file_errors(entries: Iterable[FileError]) -> list[str]:
    """The problems of an input file, one on a line."""
    shown = []
    for entry in entries:
        where = f"line {entry['line']}" if entry.get("line") is not None else "file"
        fields = (entry.get("code"), entry.get("param"))
        known = ", ".join(plain(field) for field in fields if field)
        shown.append(f"  {where}: {plain(entry.get('message'))}" + (f" ({known})" if known else ""))
    return shown


def _cell(name: str, value: Any, found: Batch) -> str:
    if name.endswith("_at"):
        return moment(value)
    if name == "request_counts":
        return counts(found)
    if name == "usage":
        return f"{value['input_tokens']} input tokens, {value['output_tokens']} output tokens"
    if name == "answer_seconds":
        return f"half of the recent answers within {value['p50']:.1f} s, nine of ten within {value['p90']:.1f} s"
    if name == "metadata":
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return str(value)
