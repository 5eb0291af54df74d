"""Batches and tables as plain text: the same on a terminal, in a file and in a CI log."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from nightshift_cli.resources import Batch, FileError


def as_json(content: object) -> str:
    return json.dumps(content, indent=2)


def plain(value: object) -> str:
    """``value`` as text without control characters, because much of it was written by others."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def table(rows: Iterable[Sequence[object]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    cells = [[plain("-" if cell is None else cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


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
    return table(row for row in rows if row[0] not in ("object", "errors")) + file_errors(problems)


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
