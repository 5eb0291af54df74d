"""samconfig.toml and the workflow that deploys agree with the template, the Makefile and each other."""

import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml
from samcli.commands.deploy.command import cli as sam_deploy

from tests.unit.test_docs import parse_admin_command
from tests.unit.transformed import ROOT, deploy, transformed

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())
ENVIRONMENTS = sorted(set(CONFIG) - {"version"})
WORKFLOW = ROOT / ".github/workflows/deploy.yml"
DEPLOY: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
STEPS: list[dict[str, Any]] = DEPLOY["jobs"]["deploy"]["steps"]
COMMANDS: list[str] = [step["run"] for step in STEPS if "run" in step]


def settings(environment: str) -> dict[str, Any]:
    """What `sam deploy --config-env` of the environment has."""
    everywhere: dict[str, Any] = CONFIG[environment].get("global", {}).get("parameters", {})
    of_deploy: dict[str, Any] = CONFIG[environment]["deploy"]["parameters"]
    return everywhere | of_deploy


def overrides(environment: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in shlex.split(settings(environment).get("parameter_overrides", ""))]
    return {name: value for name, _, value in pairs}


# --- samconfig.toml ------------------------------------------------------------------------------------------------


def test_environments_on_aws_are_stacks_of_their_own() -> None:
    assert ENVIRONMENTS == ["default", "dev", "local", "prod"]
    names = [settings(environment)["stack_name"] for environment in ("default", "dev", "prod")]
    assert len(set(names)) == 3
    # `sam delete` deletes there what a stack was deployed from; another stack may have the same files.
    assert [settings(environment)["s3_prefix"] for environment in ("default", "dev", "prod")] == names
    # The local stack is on an emulator, and the command line looks for this name unless it is told another.
    assert settings("local")["stack_name"] == settings("default")["stack_name"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_setting_is_an_option_of_sam(environment: str) -> None:
    assert set(settings(environment)) <= {option.name for option in sam_deploy.params}
    # The layers' Makefiles read uv.lock.
    assert CONFIG[environment]["build"]["parameters"]["build_in_source"] is True


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_override_is_a_parameter(environment: str) -> None:
    declared = transformed()["Parameters"]
    for name, value in overrides(environment).items():
        assert value in declared[name].get("AllowedValues", [value])


def test_production_is_protected() -> None:
    tables = deploy(**overrides("prod")).of_type("AWS::DynamoDB::Table").values()
    assert [table["DeletionProtectionEnabled"] for table in tables] == [True] * len(tables)
    (bucket,) = deploy(**overrides("prod")).of_type("AWS::S3::Bucket").values()
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert settings("prod")["confirm_changeset"] is True


def test_no_old_version_is_kept_for_long() -> None:
    """Lifecycle rules end them, also where versioning was on for a while."""
    (bucket,) = deploy().of_type("AWS::S3::Bucket").values()
    assert "VersioningConfiguration" not in bucket
    rules = bucket["LifecycleConfiguration"]["Rules"]
    kept = {rule["Prefix"]: rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules if "Prefix" in rule}
    assert kept == {"work/": 1, "uploads/": 1, "files/": 7}
    assert [rule["Id"] for rule in rules if rule.get("ExpiredObjectDeleteMarker")] == ["DeleteMarkersExpire"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_capabilities_suffice(environment: str) -> None:
    assert settings(environment)["capabilities"] == "CAPABILITY_IAM"
    # A name of one's own for any of these would need CAPABILITY_NAMED_IAM.
    kinds = ("Role", "ManagedPolicy", "User", "Group", "InstanceProfile")
    named = {f"{kind}Name" for kind in kinds}
    iam = [each for each in deploy().resources.values() if each["Type"].startswith("AWS::IAM::")]
    assert iam
    assert not any(named & set(each["Properties"]) for each in iam)


# --- .github/workflows/deploy.yml ----------------------------------------------------------------------------------


def test_the_workflow_has_a_role_and_no_key() -> None:
    text = WORKFLOW.read_text()
    assert DEPLOY["permissions"] == {"contents": "read", "id-token": "write"}
    assert "permissions" not in DEPLOY["jobs"]["deploy"]
    assert not re.search(r"\bsecrets\b|access-key|AKIA|session-token", text)
    (credentials,) = [step for step in STEPS if step.get("uses", "").startswith("aws-actions/")]
    assert credentials["with"] == {"role-to-assume": "${{ vars.AWS_ROLE_ARN }}", "aws-region": "${{ vars.AWS_REGION }}"}


def test_the_workflow_deploys_to_the_environments_of_samconfig() -> None:
    # YAML reads `on` as true.
    chosen = DEPLOY[True]["workflow_dispatch"]["inputs"]["environment"]
    assert chosen["type"] == "choice"
    assert chosen["options"] == [name for name in ENVIRONMENTS if name not in ("default", "local")]
    assert DEPLOY["jobs"]["deploy"]["environment"] == "${{ inputs.environment }}"
    for name in chosen["options"]:
        assert settings(name)["stack_name"] == f"nightshift-{name}"


def test_the_workflow_runs_commands_that_exist() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in COMMANDS:
        program, *words = shlex.split(command.replace("${{ inputs.environment }}", "dev"))
        if program == "make":
            assert set(words) <= set(targets)
        elif program == ".venv/bin/sam":
            assert words.pop(0) == "deploy"
            options = {flag for option in sam_deploy.params for flag in [*option.opts, *option.secondary_opts]}
            assert {word for word in words if word.startswith("--")} <= options
        else:
            assert program == ".venv/bin/nightshift"
            parse_admin_command(words)
    assert [shlex.split(command)[0] for command in COMMANDS] == ["make", ".venv/bin/sam", ".venv/bin/nightshift"]


def test_one_deployment_of_an_environment_at_a_time() -> None:
    assert "${{ inputs.environment }}" in DEPLOY["concurrency"]
