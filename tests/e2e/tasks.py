"""The commands of docs/tasks.md."""

import re
from collections.abc import Iterator

from local.settings import ROOT

PAGE = ROOT / "docs/tasks.md"


def blocks() -> Iterator[tuple[str, str]]:
    """Each block of commands, after its section's title."""
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            yield title, block
