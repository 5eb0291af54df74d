"""Where the API is and with which key: from options, the local stack, or the environment, in this order."""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightshift_cli.errors import CliError


@dataclass(frozen=True, slots=True)
class Connection:
    """``options`` is what has to be typed again to reach the same API; never the key."""

    base_url: str
    api_key: str = field(repr=False)
    options: str = ""


def connect(base_url: str | None, api_key: str | None, local: bool) -> Connection:
    """
    Raises:
        CliError: the base URL or the key is nowhere to be found.
    """
    options = " --local" if local else ""
    if base_url:
        options += f" --base-url {shlex.quote(base_url)}"
    stack = read_stack() if local else {}
    base_url = base_url or stack.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    api_key = api_key or stack.get("api_key") or os.environ.get("OPENAI_API_KEY")
    if not base_url:
        raise CliError("Where is the API? Give --base-url or --local, or set OPENAI_BASE_URL.")
    if not api_key:
        raise CliError("There is no API key. Give --api-key or --local, or set OPENAI_API_KEY.")
    return Connection(base_url, api_key.strip(), options)


def read_stack() -> dict[str, Any]:
    """What the local stack says of itself in ``stack.json``.

    Raises:
        CliError: there is none, or it is not up yet.
    """
    path = Path(os.environ.get("NIGHTSHIFT_LOCAL_DIR") or ".local") / "stack.json"
    try:
        stack: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise CliError(f"The local stack is not up ({path} does not exist). Start it with `make up`.") from None
    except ValueError:
        raise CliError(f"{path} is not valid JSON. Start the local stack again with `make up`.") from None
    if "base_url" not in stack:
        raise CliError("The local stack is not up yet. Wait for `make up` to finish.")
    return stack
