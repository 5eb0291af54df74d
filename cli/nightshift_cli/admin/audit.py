"""`nightshift admin audit`."""

from nightshift_cli import show
from nightshift_cli.admin import journal
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_table
from nightshift_cli.options import with_options


@with_options(operator_options)
def show_audit(operator: Operator, as_json: AsJson = False) -> None:
    """Show what operators have changed, and who they were, as far back as the logs reach (30 days)."""
    with operator as stack:
        found = journal.entries(stack.outputs["LogGroupName"])
    rows = [
        (
            *(show.moment(one["at"]), one["caller"], one["command"], one["arguments"]),
            *(one.get("changes"), one.get("error")),
        )
        for one in found
    ]
    print_table(("AT", "CALLER", "COMMAND", "ARGUMENTS", "CHANGES", "ERROR"), rows, as_json)
