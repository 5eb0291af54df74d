"""`nightshift admin`: accounts, keys, routes and batches, with the package's functions on the tables of a stack."""

import typer

from nightshift_cli.admin import (
    accounts,
    audit,
    batches,
    cost,
    dead_letters,
    doctor,
    keys,
    purge,
    restore,
    route_delete,
    routes,
)

HELP = """Operate a stack: its accounts, keys, routes and batches.

\b
Examples:
  nightshift admin routes apply docs/routes.example.yaml
  nightshift admin routes status
  nightshift admin accounts create my-team
  nightshift admin accounts quotas my-team --dollars-a-day 20
  nightshift admin keys create --account my-team
  nightshift admin batches show batch_...
  nightshift admin cost --by account
  nightshift admin dead-letters redrive
  nightshift admin doctor --spend
"""

app = typer.Typer(help=HELP, no_args_is_help=True)
accounts.app.command("purge")(purge.purge_account)
routes.app.command("delete")(route_delete.delete_routes)
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(routes.app, name="routes")
app.add_typer(batches.app, name="batches")
app.add_typer(dead_letters.app, name="dead-letters")
app.command("cost")(cost.show_cost)
app.command("audit")(audit.show_audit)
app.command("doctor")(doctor.run_doctor)
app.command("restore")(restore.restore_table)
