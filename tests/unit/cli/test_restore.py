"""`nightshift admin restore` puts back what a table has lost."""

import boto3
import pytest
from nightshift.accounts import store as accounts
from nightshift.core.table import Table

from tests.unit.cli.test_admin import OUTPUTS, admin, stack  # noqa: F401 (a fixture)


def copy_of_accounts(name: str, hash_key: str = "pk") -> None:
    dynamodb = boto3.client("dynamodb", region_name="eu-west-1")
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": hash_key, "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in (hash_key, "sk")],
    )
    for item in dynamodb.scan(TableName=OUTPUTS["AccountsTable"])["Items"] if hash_key == "pk" else []:
        dynamodb.put_item(TableName=name, Item=item)


@pytest.fixture
def account_id() -> str:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    admin("keys", "create", "--account", "acme")
    return account_id


def test_what_is_missing_comes_back_and_the_rest_is_kept(account_id: str) -> None:
    copy_of_accounts("yesterday")
    (key,) = accounts.list_keys(account_id)
    accounts.revoke_key(account_id, key.id)
    accounts.set_weight(account_id, 7)

    first = admin("restore", "accounts", "--from", "yesterday")
    assert accounts.list_keys(account_id) == [], "a revoked key does not come back by itself"
    restored = admin("restore", "accounts", "--from", "yesterday", "--with-keys")

    assert first.stdout == "Items restored: 0; kept as they are: 1. Items of API keys left out: 2.\n"
    assert restored.stdout == "Items restored: 2; kept as they are: 1.\n"
    assert accounts.list_keys(account_id) == [key]
    assert accounts.get(account_id).weight == 7


def test_items_are_replaced_if_asked(account_id: str) -> None:
    copy_of_accounts("yesterday")
    accounts.set_weight(account_id, 7)

    assert admin("restore", "accounts", "--from", "yesterday", "--overwrite").exit_code == 0

    assert accounts.get(account_id).weight == 1


def test_a_copy_of_another_table_is_refused(account_id: str) -> None:
    copy_of_accounts("yesterday")
    refused = admin("restore", "batches", "--from", "yesterday")
    assert (refused.exit_code, "it is no copy of" in refused.stderr) == (2, True)
    assert Table("batches").get(account_id, "account") is None


def test_a_table_of_another_kind_is_refused(account_id: str) -> None:
    copy_of_accounts("other", hash_key="id")

    refused = admin("restore", "accounts", "--from", "other")

    assert (refused.exit_code, "is no copy of it" in refused.stderr) == (2, True)
    assert Table("accounts").get(account_id, "account")
