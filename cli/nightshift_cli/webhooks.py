"""`nightshift webhooks`: what somebody needs who writes a receiver."""

from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.connection import connect

app = typer.Typer(help="Develop a receiver of webhooks.", no_args_is_help=True)


@app.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 4500,
    secret: Annotated[str | None, typer.Option(metavar="whsec_…", help="What signs the webhooks.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Get a new secret from the local stack that `make up` started.")
    ] = False,
    answer: Annotated[int, typer.Option(min=200, max=599, help="The status to answer with, to try failures.")] = 200,
) -> None:
    """Receive the local stack's webhooks, verify their signatures and print them, until Ctrl-C.

    The stack lets webhooks go to this machine when it was started with NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS=1.
    """
    from nightshift_cli import receiver

    if secret is None and not local:
        raise typer.BadParameter("give the secret, or --local to get a new one", param_hint="--secret")
    verifier = receiver.verifier(secret) if secret else None
    with receiver.Receiver(port, answer) as server:
        # Not before the port is known to be free: each time, a secret that is in use is set aside.
        server.verifier = verifier or receiver.verifier(_rotate())
        typer.echo(f"Listening. Use this as callback_url: http://127.0.0.1:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped.")


def _rotate() -> str:
    from nightshift_cli.client import Client

    with Client(connect(None, None, local=True)) as client:
        secret: str = client.rotate_webhook()["secret"]
    typer.echo("A secret is shown only once, so the account's was rotated; the one before it is valid for 24 h more.")
    typer.echo(f"The new one: {show.plain(secret)}")
    return secret
