"""`python -m nightshift_cli` is `nightshift`."""

from nightshift_cli.main import app

app(prog_name="nightshift")
