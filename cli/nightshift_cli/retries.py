"""`nightshift run --retry-failed`: the results of a batch and of its retries as one, in the order of the input."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nightshift.input.lines import custom_id_of

from nightshift_cli.errors import CliError
from nightshift_cli.resources import Batch
from nightshift_cli.run import errors_path


def are_due(batch: Batch) -> bool:
    """Whether lines of an ended batch failed, and nobody wanted it to stop."""
    return batch["status"] in ("completed", "expired") and batch["error_file_id"] is not None


def check_part(source: Path, output: Path) -> None:
    """Check that the results of a retry have a place of their own.

    Raises:
        CliError: they would overwrite the input.
    """
    if source in (_part(output), errors_path(_part(output))):
        raise CliError(f"{source} is the input and would be overwritten.")


def _part(output: Path) -> Path:
    return output.with_name(f"{output.stem}.retry.jsonl")


@contextmanager
def merged_into(source: Path, output: Path) -> Iterator[Path]:
    """The path for the results of a retry. After the block, what was written there is merged into ``output`` and its
    error file; nothing is lost if the block fails."""
    part = _part(output)
    part.unlink(missing_ok=True)
    yield part
    if part.exists():
        merge(source, output, part)
        errors = errors_path(part)
        if errors.exists():
            errors.replace(errors_path(output))
        else:
            errors_path(output).unlink(missing_ok=True)
        part.unlink()


def merge(source: Path, output: Path, retried: Path) -> None:
    """Put the lines of ``retried`` between those of ``output``. Both have lines of the input ``source``, in its order.

    ``output`` is replaced only when it is complete.

    Raises:
        CliError: the input has changed since it was uploaded.
    """
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as target:
            for line in _in_order(_lines(source), _lines(output), _lines(retried)):
                target.write(line + b"\n")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _in_order(source: Iterator[bytes], *answers: Iterator[bytes]) -> Iterator[bytes]:
    heads = [_head(each) for each in answers]
    for line in source:
        if not line.strip():
            continue
        custom_id = custom_id_of(line)
        for place, (head_id, head) in enumerate(heads):
            if head is not None and head_id == custom_id:
                yield head
                heads[place] = _head(answers[place])
                break
    if any(head is not None for _, head in heads):
        raise CliError("The input file has changed since it was uploaded, so the answers could not be merged.")


def _head(lines: Iterator[bytes]) -> tuple[str | None, bytes | None]:
    """The next line and its ``custom_id``; None for both at the end."""
    line = next(lines, None)
    return (None, None) if line is None else (custom_id_of(line), line)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")
