"""How fast an input file is checked and planned, against the limit and against simpler readers; how much memory that
takes; and what else the create call does.

All read the same objects from the same emulated S3, which runs in its own process: ours by ranges of 4 MiB, two of them
ahead, `iter_lines` in one stream, and the other peers by ranges of 8 MiB. The peers only parse. They do not look for
duplicate custom_ids, a second model or deep nesting, and do not describe errors. The slow ones read a smaller file,
because MB/s are compared.

MB/s is what a user sees, including the time of S3. MB for each CPU second is the cost of the reader itself.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, Literal
from unittest import mock

import msgspec
import pydantic
from nightshift.batches import planning
from nightshift.batches import store as batches
from nightshift.core import aws, settings
from nightshift.core.log import logger
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import inspection
from nightshift.routes.endpoint import DEFAULT, EndpointPath

from bench import report
from bench.emulator import emulated_aws
from bench.peers import cpu_seconds
from bench.tls import memory
from tests.integration.support import MODEL, Caller, apply_route, new_caller

LINES, LINE_BYTES = 50_000, 4_160
OURS = "inspect and plan, whole"
# As in real prompts: line breaks, quotes, brackets.
ENGLISH = 'The night shift answers [1]:\n"What the day has asked, the queue has kept." {see below}\n\n'
OTHERS = "Die Nachtschicht beantwortet für 5 €:\n„Was der Tag gefragt hat“, 夜勤は答える。\n\n"

Figures = dict[str, list[float]]


def input_file(lines: int, text: str) -> bytes:
    """An input file of ``lines`` lines with about ``LINE_BYTES`` each, in UTF-8."""

    def line(number: int, content: str) -> bytes:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
        body = {"model": MODEL, "messages": messages}
        request = {"custom_id": f"r{number:05d}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"

    empty = len(line(0, ""))
    each = len(line(0, text)) - empty
    whole = text * ((LINE_BYTES - empty) // each)
    return b"".join(line(number, whole) for number in range(lines))


# --- ours and the peers -----------------------------------------------------------------------------------------------


def ours(file: File) -> int:
    """Check and plan the file as the create call does. Returns its number of lines."""
    inspected = inspection.inspect(file, DEFAULT, 300)
    assert inspected is not None
    return planning.write_plan(file.account_id, "batch_bench", inspected).lines


def _lines(file: File) -> Iterator[bytes]:
    """The file's lines, from ranges of 8 MiB, which is the fastest way known."""
    s3, size, step = aws.client("s3"), file.size, 8 * 1024 * 1024
    rest = b""
    for start in range(0, size, step):
        span = f"bytes={start}-{min(start + step, size) - 1}"
        block = s3.get_object(Bucket=settings.bucket(), Key=files.key(file.account_id, file.id), Range=span)[
            "Body"
        ].read()
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest


def split(file: File) -> int:
    ends: list[int] = []
    offset = 0
    for line in _lines(file):
        offset += len(line) + 1
        ends.append(offset)
    return len(ends)


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _Body


def bare_msgspec(file: File) -> int:
    decode = msgspec.json.Decoder(_Line).decode
    count = 0
    for line in _lines(file):
        if not line.isascii():
            line.decode()
        decode(line)
        count += 1
    return count


class _PydanticBody(pydantic.BaseModel):
    model: str
    messages: list[dict[str, Any]]


class _PydanticLine(pydantic.BaseModel):
    custom_id: str
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: _PydanticBody


def pydantic_per_line(file: File) -> int:
    count = 0
    for line in _lines(file):
        _PydanticLine.model_validate_json(line)
        count += 1
    return count


def iter_lines(file: File, chunk_size: int = 1024) -> int:
    """The default of ``chunk_size`` is botocore's."""
    body = aws.client("s3").get_object(Bucket=settings.bucket(), Key=files.key(file.account_id, file.id))["Body"]
    count = 0
    for line in body.iter_lines(chunk_size):
        json.loads(line)
        count += 1
    return count


# By name: the title, the reader, and the target of our rate as a multiple of its rate.
SHOWN: dict[str, tuple[str, Callable[[File], int], float | None]] = {
    "split": ("split and index, no parse (the limit)", split, None),
    "msgspec": ("bare msgspec loop, UTF-8 checked", bare_msgspec, 0.75),
    OURS: (OURS, ours, None),
    "pydantic": ("pydantic per line", pydantic_per_line, 1.5),
    "iter_lines": ("iter_lines and json", iter_lines, 4),
    "iter_lines 1 MiB": ("iter_lines(chunk_size=1 MiB) and json", partial(iter_lines, chunk_size=1024 * 1024), None),
}


class Rates:
    """MB/s and MB for each CPU second."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)

    def measure(self, name: str, reader: Callable[[File], int], file: File, lines: int) -> float:
        started, busy = time.perf_counter(), cpu_seconds()
        assert reader(file) == lines
        seconds, busy = time.perf_counter() - started, cpu_seconds() - busy
        self.cpu[name].append(file.size / 1e6 / busy)
        return float(file.size / 1e6 / seconds)


# --- memory and the create call ---------------------------------------------------------------------------------------


def added_memory(*checked: File) -> float:
    """How many MB the peak of a new process grows when it checks the second file after the first."""
    command = [sys.executable, "-m", "bench.validate", "--memory", msgspec.json.encode(checked).decode()]
    small, large = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return float(large - small)


def peaks(checked: list[File]) -> list[float]:
    """This process's peak in MB after each of the files."""
    import functions.create_batch.app  # noqa: F401 (the function's own memory)

    after = []
    for file in checked:
        ours(file)
        after.append(memory("VmHWM"))
    return after


class Creates:
    """The real handler of ``POST /v1/batches``, with ``inspection.inspect`` timed inside."""

    def __init__(self, caller: Caller, file: File) -> None:
        self._caller = caller
        self._file = file
        self.seconds: list[float] = []
        self.other: list[float] = []  # milliseconds outside of ``inspect``
        self.share: list[float] = []

    def once(self) -> float:
        inside: list[float] = []
        inspect = inspection.inspect

        def timed(file: File, endpoint: EndpointPath, seconds: float) -> inspection.Inspected | None:
            started = time.perf_counter()
            taken = inspect(file, endpoint, seconds)
            inside.append(time.perf_counter() - started)
            return taken

        with mock.patch.object(inspection, "inspect", timed):
            started = time.perf_counter()
            answer = self._caller("POST", "/batches", json_body={"input_file_id": self._file.id})
            took = time.perf_counter() - started
        assert answer.status == 200, answer.body
        plan = batches.get(self._caller.account_id, answer.json["id"]).plan
        assert plan is not None, "it was not validated inside the call"
        assert plan.lines == LINES
        Table("batches").delete(
            self._caller.account_id, answer.json["id"]
        )  # because every create reads the open batches
        self.seconds.append(took)
        self.other.append(1000 * (took - inside[0]))
        self.share.append(1 - inside[0] / took)
        return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    parser.add_argument("--memory", help=argparse.SUPPRESS, metavar="FILES")
    given = parser.parse_args()
    logger.setLevel("ERROR")
    if given.memory:
        print(json.dumps(peaks(msgspec.json.decode(given.memory, type=list[File]))))
        return
    times = 2 if given.quick else 3
    with emulated_aws():
        apply_route()
        caller = new_caller("bench")
        rates, figures = read_rates(caller, times)
        creates, memories = create_figures(caller, times)
    rows = [*rate_rows("MB/s", "", figures), *rate_rows("MB/CPU s", ", CPU", rates.cpu)]
    rows += [
        report.row(f"create call, {LINES:,} lines, 208 MB", creates.seconds, "s"),
        report.row("create call: all but inspect", creates.other, "ms"),
        report.row("memory that 208 MB add to the peak", memories, "MB"),
    ]
    targets = [
        *rate_targets(figures),
        report.target("create call: all but inspect, of it", median(creates.share), 0.15, at_least=False),
        report.target("memory that 208 MB add to the peak, MB", median(memories), 48, at_least=False),
    ]
    report.publish("validate", rows, targets, report.versions("msgspec", "pydantic", "botocore"))


def stored(caller: Caller, lines: int, text: str) -> File:
    return files.get(caller.account_id, caller.upload(input_file(lines, text)))


def read_rates(caller: Caller, times: int) -> tuple[Rates, Figures]:
    """All readers on ASCII files, and all but the slow ones on UTF-8 files: their rates by kind and title."""
    rates = Rates()
    large, small = stored(caller, LINES, ENGLISH), stored(caller, LINES // 4, ENGLISH)
    others, tiny = stored(caller, LINES // 4, OTHERS), stored(caller, 10, ENGLISH)
    runs: dict[str, Callable[[], float]] = {}
    for name, (what, reader, _) in SHOWN.items():
        is_slow = name.startswith("iter_lines")
        file, lines = (small, LINES // 4) if is_slow else (large, LINES)
        runs[f"ASCII: {what}"] = partial(rates.measure, f"ASCII: {what}", reader, file, lines)
        if not is_slow:
            runs[f"UTF-8: {what}"] = partial(rates.measure, f"UTF-8: {what}", reader, others, LINES // 4)
        reader(tiny)  # for its imports and its connection
    return rates, report.repeat(runs, times)


def create_figures(caller: Caller, times: int) -> tuple[Creates, list[float]]:
    """The create calls of a large file, and the MB that the file adds to the peak of a process."""
    large, tiny = stored(caller, LINES, ENGLISH), stored(caller, 10, ENGLISH)
    Creates(caller, large).once()  # for its imports and its connections
    creates = Creates(caller, large)
    figures = report.repeat({"create": creates.once, "memory": lambda: added_memory(tiny, large)}, times)
    return creates, figures["memory"]


def rate_rows(unit: str, suffix: str, figures: Figures) -> list[dict[str, Any]]:
    """A row for each reader, against bare msgspec on the same kind of file."""
    base = {kind: figures[f"{kind}: {SHOWN['msgspec'][0]}"] for kind in ("ASCII", "UTF-8")}
    return [report.row(f"{name}{suffix}", found, unit, base[name.partition(":")[0]]) for name, found in figures.items()]


def rate_targets(figures: Figures) -> list[dict[str, Any]]:
    return [
        report.target(f"{kind}: {OURS}, against {what}", median(figures[f"{kind}: {OURS}"]) / median(theirs), wanted)
        for what, _, wanted in SHOWN.values()
        for kind in ("ASCII", "UTF-8")
        if wanted and (theirs := figures.get(f"{kind}: {what}"))
    ]


if __name__ == "__main__":
    main()
