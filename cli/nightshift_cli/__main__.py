"""`python -m nightshift_cli` runs `nightshift`."""

from nightshift_cli.main import app

app(prog_name="nightshift")
