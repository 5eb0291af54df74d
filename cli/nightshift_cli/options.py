"""Options that several commands share, declared once."""

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from typing import Any

Command = Callable[..., None]


def with_options(shared: Callable[..., object]) -> Callable[[Command], Command]:
    """Add the options that are parameters of ``shared`` to a command. Each of them needs a default.

    The command's first argument is what ``shared`` returns. Typer sees the command's other parameters and the options.

    Example:
        @app.command()
        @with_options(connect)
        def cancel(connection: Connection, batch_id: BatchId) -> None: ...
    """
    options = signature(shared).parameters

    def decorate(command: Command) -> Command:
        _, *own = signature(command).parameters.values()

        @wraps(command)
        def call(**given: Any) -> None:
            chosen = shared(**{name: given.pop(name) for name in options})
            command(chosen, **given)

        signed = Signature([*own, *options.values()])
        call.__signature__ = signed  # type: ignore[attr-defined]  # typeshed lacks this attribute of functions
        return call

    return decorate
