"""The API's address and key: from options, the local stack or the environment, in this order."""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from nightshift_cli.errors import CliError

BaseUrl = Annotated[str | None, typer.Option(help="The API, ending in /v1. Default: OPENAI_BASE_URL.")]
ApiKey = Annotated[str | None, typer.Option(help="Default: OPENAI_API_KEY.")]
Local = Annotated[bool, typer.Option("--local", help="Use the local stack that `make up` started.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """``options`` are the command-line options that select the same API again. They never contain the key."""

    base_url: str
    api_key: str = field(repr=False)
    options: str = ""


def connect(base_url: BaseUrl = None, api_key: ApiKey = None, local: Local = False) -> Connection:
    """The connection that these options of a command select.

    Raises:
        CliError: there is no base URL or no key.
    """
    options = " --local" if local else ""
    if base_url:
        options += f" --base-url {shlex.quote(base_url)}"
    stack = read_stack() if local else {}
    base_url = base_url or stack.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    api_key = api_key or stack.get("api_key") or os.environ.get("OPENAI_API_KEY")
    if not base_url:
        raise CliError("There is no base URL. Give --base-url or --local, or set OPENAI_BASE_URL.")
    if not api_key:
        raise CliError("There is no API key. Give --api-key or --local, or set OPENAI_API_KEY.")
    return Connection(base_url, api_key.strip(), options)


def read_stack() -> dict[str, Any]:
    """The content of the local stack's ``stack.json``.

    Raises:
        CliError: the file is missing, or the stack is still starting.
    """
    path = Path(os.environ.get("NIGHTSHIFT_LOCAL_DIR") or ".local") / "stack.json"
    try:
        stack: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise CliError(f"The local stack is not running ({path} was not found). Start it with `make up`.") from None
    except ValueError:
        raise CliError(f"{path} is not valid JSON. Start the local stack again with `make up`.") from None
    if "base_url" not in stack:
        raise CliError(
            "The local stack is still starting. Wait for `make up` to finish; if it has ended, run it again."
        )
    return stack
