"""What every client's program reads and writes: `python <program>.py INPUT OUTPUT`.

INPUT is a batch's input file. OUTPUT gets one line for each answer, {"custom_id", "text"}, in the order in which the
client returns them. The base URL and the key are in OPENAI_BASE_URL and OPENAI_API_KEY.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 1
ENDED = ("completed", "failed", "expired", "cancelled")


class Prompt(NamedTuple):
    custom_id: str
    model: str
    text: str


class Answer(NamedTuple):
    custom_id: str
    text: str


def paths() -> tuple[Path, Path]:
    """INPUT and OUTPUT."""
    _, given, wanted = sys.argv
    return Path(given), Path(wanted)


def prompts(given: Path) -> list[Prompt]:
    """The requests of INPUT, for clients that build the input file themselves."""
    requests = [json.loads(line) for line in given.read_text().split("\n")]
    return [
        Prompt(each["custom_id"], each["body"]["model"], each["body"]["messages"][0]["content"]) for each in requests
    ]


def answers(output: str) -> list[Answer]:
    """The answers in a batch's output file, for clients that return it as it is."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [Answer(each["custom_id"], each["response"]["body"]["choices"][0]["message"]["content"]) for each in lines]


def write(wanted: Path, found: Iterable[Answer]) -> None:
    """Write OUTPUT."""
    wanted.write_text("".join(json.dumps(answer._asdict()) + "\n" for answer in found))
