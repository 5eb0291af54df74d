"""The console checks files by the server's rules."""

from tools.console_rules import RULES, documents


def test_the_consoles_rules_are_up_to_date() -> None:
    assert RULES.read_text() == documents()[RULES], "run `make openapi`"
