"""What is deployed to the local stack: the template, two accounts with a key each, and a route."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from local import emulated
from local.settings import MODEL, REGION, ROOT, ROOT_CREDENTIALS, SECRET, STACK_NAME, StackError

_CONFIG = ("--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local")


class StateLostError(Exception):
    """The emulator runs, but its saved state has no stack."""


def digest(port: int) -> str:
    """A digest of everything that a deployment depends on; the port too, because queue URLs contain it."""
    found = hashlib.sha256(json.dumps([sys.version, port, _parameters(), emulated.variables(os.environ)]).encode())
    for path in _deployed_files():
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def deploy(endpoint: str, build: Path) -> None:
    """Build the template in the folder ``build``, as the emulator takes it, and deploy it there, at ``endpoint``."""
    _run(["sam", "build", *_CONFIG, "--build-dir", str(build)], environment(endpoint))
    template = build / "template.yaml"
    changed = emulated.emulated(yaml.safe_load(template.read_text()), emulated.variables(os.environ))
    template.write_text(json.dumps(changed, indent=1))
    deploy_built(endpoint, build, STACK_NAME)


def deploy_built(endpoint: str, build: Path, stack_name: str) -> None:
    """Deploy what is built in the folder ``build`` as the stack ``stack_name``."""
    overrides = [f"ParameterKey={name},ParameterValue={value}" for name, value in _parameters().items()]
    given = ("--parameter-overrides", *overrides) if overrides else ()
    _run(
        [
            *("sam", "deploy", *_CONFIG, "--template-file", str(build / "template.yaml")),
            *("--stack-name", stack_name, "--s3-prefix", stack_name, *given),
        ],
        environment(endpoint),
    )


def environment(endpoint: str) -> dict[str, str]:
    """The environment in which SAM, the AWS command line and `nightshift admin` work on the emulator."""
    given = os.environ | {
        **ROOT_CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "SAM_CLI_TELEMETRY": "0",
        "UV": shutil.which("uv") or "uv",
        "RUNTIME": sys.executable,
        "LAYER_TARGET": f"--python {sys.executable}",
    }
    return {name: value for name, value in given.items() if name not in ("AWS_PROFILE", "AWS_SESSION_TOKEN")}


def stack_outputs(endpoint: str, stack_name: str = STACK_NAME) -> dict[str, str]:
    """The outputs of the deployed template.

    Raises:
        StateLostError: there is no such stack.
    """
    cloudformation = client("cloudformation", endpoint)
    try:
        stacks = cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
    except cloudformation.exceptions.ClientError as error:
        raise StateLostError from error
    return {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}


def provision(endpoint: str, outputs: dict[str, str], upstream_url: str, keys: dict[str, str] | None) -> dict[str, str]:
    """Create the route, and two accounts with a key each, with the code of `nightshift admin`. Returns the keys."""
    os.environ.update(admin_environment(endpoint, outputs))
    from nightshift.accounts import store as accounts
    from nightshift.routes import store as routes
    from nightshift.routes.endpoint import ENDPOINTS
    from nightshift.routes.route import Route, Sku

    secretsmanager = client("secretsmanager", endpoint)
    upstream_key = os.environ.get("UPSTREAM_API_KEY") or secrets.token_urlsafe(16)
    try:
        secretsmanager.create_secret(Name=SECRET, SecretString=upstream_key)
    except secretsmanager.exceptions.ResourceExistsException:
        secretsmanager.put_secret_value(SecretId=SECRET, SecretString=upstream_key)
    routes.apply(
        [
            Route(
                model=MODEL,
                provider="upstream" if os.environ.get("UPSTREAM_BASE_URL") else "simulator",
                base_url=upstream_url,
                upstream_model=os.environ.get("UPSTREAM_MODEL") or "simulated-model",
                endpoints=tuple(ENDPOINTS),
                sku=Sku("local"),
                timeout_seconds=60,
                api_key_secret=SECRET,
            )
        ]
    )
    if keys is None:
        keys = {
            "api_key": accounts.create_key(accounts.create_account("local"))[0],
            "other_api_key": accounts.create_key(accounts.create_account("other"))[0],
        }
    return keys


def admin_environment(endpoint: str, outputs: dict[str, str]) -> dict[str, str]:
    """The environment variables with which the package operates the local stack."""
    return {
        **ROOT_CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "ACCOUNTS_TABLE": outputs["AccountsTable"],
        "BATCHES_TABLE": outputs["BatchesTable"],
        "ROUTES_TABLE": outputs["RoutesTable"],
        "ROUTE_STATE_TABLE": outputs["RouteStateTable"],
    }


def client(service: str, endpoint: str) -> Any:
    import boto3

    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def _parameters() -> dict[str, str]:
    seconds = os.environ.get("NIGHTSHIFT_SYNC_VALIDATION_SECONDS")
    return {} if seconds is None else {"SyncValidationSeconds": seconds}


def _deployed_files() -> list[Path]:
    folders = ["functions", "layers", "statemachines"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    ours = [ROOT / "local" / name for name in ("settings.py", "deployment.py", "emulated.py", "stack.py")]
    named = [ROOT / "template.yaml", ROOT / "uv.lock", *ours]
    return sorted(path for path in inside + named if "__pycache__" not in path.parts)


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{' '.join(command[:2])} failed:\n{(done.stdout + done.stderr)[-4000:]}")
