"""`nightshift webhooks`: tools for the developer of a webhook receiver."""

from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.connection import connect

app = typer.Typer(help="Develop a webhook receiver.", no_args_is_help=True)


@app.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 4500,
    secret: Annotated[str | None, typer.Option(metavar="whsec_…", help="The account's signing secret.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Get a new secret from the local stack that `make up` started.")
    ] = False,
    answer: Annotated[int, typer.Option(min=200, max=599, help="The status to answer, to test failures.")] = 200,
) -> None:
    """Receive webhooks, verify their signatures and print them, until Ctrl-C.

    \b
    Examples:
      nightshift webhooks listen --local
      nightshift webhooks listen --local --answer 500     watch the tries
      nightshift webhooks listen --secret whsec_…

    The local stack sends webhooks to this machine if it was started with NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS=1.
    """
    from nightshift_cli import receiver

    if secret is None and not local:
        raise typer.BadParameter("give the secret, or --local to get a new one", param_hint="--secret")
    verifier = receiver.verifier(secret) if secret else None
    with receiver.Receiver(port, answer) as server:
        # Only now, because a rotation for a port that is taken would replace a secret in use for nothing.
        server.verifier = verifier or receiver.verifier(_rotate())
        typer.echo(f"Listening. Use this as callback_url: http://127.0.0.1:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Stopped.")


def _rotate() -> str:
    from nightshift_cli.client import Client

    with Client(connect(local=True)) as client:
        secret = client.rotate_webhook()["secret"]
    typer.echo("The account's secret was rotated, because a secret is shown only once. The old one is valid for 24 h.")
    typer.echo(f"The new secret: {show.plain(secret)}")
    return secret
