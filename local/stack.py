"""The local stack: ministack, the real template on it, two accounts, a route, and the upstream simulator.

`make up` calls `python -m local.stack up`; `make down` and `make logs` do likewise. One folder (`.local`, or
NIGHTSHIFT_LOCAL_DIR) holds everything: the emulator's state, logs, the build, and `stack.json`, which describes the
running stack to its users.
"""

import argparse
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
STACK_NAME = "nightshift"
MODEL = "demo-model"
SECRET = "nightshift/upstream"
# With AUTH=true this key is the emulator's root user, and IAM policies apply to all others.
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
START_SECONDS = 60


class StackError(Exception):
    """A command failed; the message says what to do."""


class _StateLostError(Exception):
    """The emulator runs, but its saved state has no stack."""


class Stack:
    """One local stack, kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = folder / "stack.json"
        self._deployment = folder / "deployment.json"
        self._build = folder / "build"
        self._logs = folder / "logs"

    # --- up ------------------------------------------------------------------------------------------------------

    def up(self) -> dict[str, Any]:
        """Start what does not run, deploy what has changed, and write ``stack.json``."""
        port = int(os.environ.get("NIGHTSHIFT_PORT", "4566"))
        digest = self._digest(port)
        running = self.read()
        is_current = self._deployed().get("digest") == digest
        if running and is_current and all(_is_alive(pid) for pid in running["pids"].values()):
            return running
        self.down()
        if is_current and (self.folder / "state").is_dir():
            try:
                return self._start(port, digest, self._deployed()["keys"])
            except _StateLostError:
                # The emulator was killed before it saved its state.
                self.down()
        return self._start(port, digest, None)

    def _start(self, port: int, digest: str, keys: dict[str, str] | None) -> dict[str, Any]:
        """Start everything: from the saved state if ``keys`` are given, otherwise from scratch."""
        self._logs.mkdir(parents=True, exist_ok=True)
        if keys is None:
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        else:
            self._forget_stream_positions()
        upstream_port = int(os.environ.get("NIGHTSHIFT_UPSTREAM_PORT") or free_port())
        control_port = free_port()
        _require_free(port, "NIGHTSHIFT_PORT")
        _require_free(upstream_port, "NIGHTSHIFT_UPSTREAM_PORT")
        pids = {
            "emulator": self._start_emulator(port),
            "upstream": self._start_upstream(upstream_port, control_port),
        }
        endpoint = f"http://127.0.0.1:{port}"
        # Written early, so that `down` finds the processes if a later step fails.
        self._describe({"aws_endpoint_url": endpoint, "region": REGION, "stack_name": STACK_NAME, "pids": pids})
        self._wait_for(f"{endpoint}/_ministack/health", pids["emulator"], "emulator")
        self._wait_for(f"http://127.0.0.1:{control_port}/control", pids["upstream"], "upstream")
        if keys is None:
            self._deploy(endpoint)
        outputs = self._outputs(endpoint)
        upstream_url = os.environ.get("UPSTREAM_BASE_URL") or f"http://127.0.0.1:{upstream_port}/v1"
        keys = self._provision(endpoint, outputs, upstream_url, keys)
        self._deployment.touch(mode=0o600)
        self._deployment.write_text(json.dumps({"digest": digest, "keys": keys}))
        return self._describe(
            {
                "base_url": f"http://localhost:{port}/_aws/execute-api/{outputs['RestApiId']}/v1",
                "api_key": keys["api_key"],
                "other_api_key": keys["other_api_key"],
                "aws_endpoint_url": endpoint,
                "region": REGION,
                "stack_name": STACK_NAME,
                "upstream_url": upstream_url,
                "upstream_control_url": f"http://127.0.0.1:{control_port}/control",
                "pids": pids,
            }
        )

    def read(self) -> dict[str, Any] | None:
        """The content of ``stack.json``; None if there is none."""
        try:
            description: dict[str, Any] = json.loads(self.description.read_text())
        except FileNotFoundError:
            return None
        return description

    def _describe(self, description: dict[str, Any]) -> dict[str, Any]:
        self.description.touch(mode=0o600)
        self.description.write_text(json.dumps(description, indent=2) + "\n")
        return description

    def _deployed(self) -> dict[str, Any]:
        """The digest and the API keys of the last deployment; empty if there is none."""
        try:
            deployed: dict[str, Any] = json.loads(self._deployment.read_text())
        except FileNotFoundError:
            return {}
        return deployed

    def _digest(self, port: int) -> str:
        """A digest of everything that a deployment depends on; the port too, because queue URLs contain it."""
        digest = hashlib.sha256(json.dumps([sys.version, port, self._parameters()]).encode())
        for path in _deployed_files():
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def _parameters(self) -> dict[str, str]:
        given = {
            "SyncValidationSeconds": os.environ.get("NIGHTSHIFT_SYNC_VALIDATION_SECONDS"),
            "CompletionWindowSeconds": os.environ.get("NIGHTSHIFT_COMPLETION_WINDOW_SECONDS"),
            "WebhookDelays": os.environ.get("NIGHTSHIFT_WEBHOOK_DELAYS"),
            "AllowLocalWebhooks": "true" if os.environ.get("NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS") == "1" else None,
            "AllowPlainHttp": "true",
            "S3AddressingStyle": "path",
        }
        return {name: value for name, value in given.items() if value is not None}

    def _forget_stream_positions(self) -> None:
        """Delete the saved positions in the tables' streams. The emulator does not save the streams, so after a restart
        the functions would wait for as many records as before."""
        saved = self.folder / "state" / "lambda.json"
        if saved.exists():
            state = json.loads(saved.read_text())
            positions = state.get("payload", {}).get("dynamodb_stream_positions")
            if isinstance(positions, dict) and positions.get("data"):
                positions["data"] = {} if isinstance(positions["data"], dict) else []
                saved.write_text(json.dumps(state))

    def _start_emulator(self, port: int) -> int:
        state = self.folder / "state"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self._fresh("tmp")),
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_REGION": REGION,
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state / "s3"),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            # As on Lambda, the only bytecode is what the layers ship.
            "PYTHONDONTWRITEBYTECODE": "1",
            "LOG_LEVEL": "INFO",
            **ROOT_CREDENTIALS,
        }
        return self._spawn("emulator", [str(emulator_python()), "-m", "ministack"], environment)

    def _start_upstream(self, port: int, control_port: int) -> int:
        command = [sys.executable, "-m", "local.upstream", "--port", str(port), "--control-port", str(control_port)]
        return self._spawn("upstream", command, {"PATH": os.environ["PATH"]})

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> int:
        with (self._logs / f"{name}.log").open("wb") as log:
            # A new session, so that `down` can end the process with the workers that it starts.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process.pid

    def _wait_for(self, url: str, pid: int, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if not _is_alive(pid):
                    break
                time.sleep(0.05)
        tail = (self._logs / f"{name}.log").read_text(errors="replace")[-2000:]
        raise StackError(f"the {name} did not start. The end of {self._logs / name}.log:\n{tail}")

    def _deploy(self, endpoint: str) -> None:
        environment = {
            **os.environ,
            **ROOT_CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "SAM_CLI_TELEMETRY": "0",
            "UV": shutil.which("uv") or "uv",
            "RUNTIME": sys.executable,
            "LAYER_TARGET": f"--python {sys.executable}",
        }
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.pop(name, None)
        overrides = [f"ParameterKey={name},ParameterValue={value}" for name, value in self._parameters().items()]
        config = ["--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local"]
        self._run(["sam", "build", *config, "--build-dir", str(self._build)], environment)
        self._run(
            [
                *("sam", "deploy", *config, "--template-file", str(self._build / "template.yaml")),
                *("--parameter-overrides", *overrides),
            ],
            environment,
        )

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"{' '.join(command[:2])} failed:\n{(done.stdout + done.stderr)[-4000:]}")

    def _outputs(self, endpoint: str) -> dict[str, str]:
        cloudformation = _client("cloudformation", endpoint)
        try:
            stacks = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"]
        except cloudformation.exceptions.ClientError as error:
            raise _StateLostError from error
        return {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}

    def _provision(
        self, endpoint: str, outputs: dict[str, str], upstream_url: str, keys: dict[str, str] | None
    ) -> dict[str, str]:
        """Create the route, and two accounts with a key each, with the code of `nightshift admin`. Returns the keys."""
        os.environ.update(admin_environment(endpoint, outputs))
        from nightshift.accounts import store as accounts
        from nightshift.routes import store as routes
        from nightshift.routes.route import Route, Sku

        secretsmanager = _client("secretsmanager", endpoint)
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

    # --- down and logs -------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop the processes that ``up`` started, by their ids, and wait until they have ended."""
        for name, pid in ((self.read() or {}).get("pids") or {}).items():
            _stop(pid, seconds=20 if name == "emulator" else 5)
        self.description.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def logs(self) -> Iterator[str]:
        """New lines of every function's log, as they are written."""
        description = self.read()
        if description is None:
            raise StackError("the stack is not running; start it with `make up`")
        client = _client("logs", description["aws_endpoint_url"])
        since, seen = int(time.time() * 1000), set[tuple[int, str]]()
        while True:
            for group in client.describe_log_groups()["logGroups"]:
                name = group["logGroupName"]
                for event in client.filter_log_events(logGroupName=name, startTime=since)["events"]:
                    line = (event["timestamp"], event["message"])
                    if line not in seen:
                        seen.add(line)
                        yield event["message"].rstrip()
            time.sleep(1)


def workers(folder: Path) -> Iterator[tuple[int, str]]:
    """The Lambda processes of the stack in ``folder``: process ids with their function's logical id."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_text()
            except OSError:
                continue  # the process has ended
            function = re.search(rf"ministack-lambda-{STACK_NAME}-(\w+)-", command)
            if function and str(folder) in command:
                yield int(process.name), function[1]


def admin_environment(endpoint: str, outputs: dict[str, str]) -> dict[str, str]:
    """The environment variables with which the package operates the local stack."""
    return {
        **ROOT_CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "ACCOUNTS_TABLE": outputs["AccountsTable"],
        "ROUTES_TABLE": outputs["RoutesTable"],
    }


def emulator_python() -> Path:
    """The emulator's Python. It has only Lambda's packages, so that a package missing in a layer is found."""
    return ROOT / ".local" / "emulator" / "bin" / "python"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_free(port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(f"port {port} is in use; set {name} to a free one") from None


def _deployed_files() -> list[Path]:
    folders = ["functions", "layers", "statemachines"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = [ROOT / "template.yaml", ROOT / "uv.lock", Path(__file__)]
    return sorted(path for path in inside + named if "__pycache__" not in path.parts)


def _client(service: str, endpoint: str) -> Any:
    import boto3

    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text() if Path("/proc").is_dir() else ""
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[:1] != ["Z"]


def _stop(pid: int, seconds: float) -> None:
    """End the process and its session: by SIGTERM, so that the emulator saves its state, then by SIGKILL."""
    for sign, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if not _is_alive(pid):
            break
        os.kill(pid, sign)
        deadline = time.monotonic() + wait
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    try:
        os.killpg(pid, signal.SIGKILL)  # workers that the emulator has left
    except ProcessLookupError:
        return


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["up", "down", "logs"])
    command = parser.parse_args().command
    stack = Stack(Path(os.environ.get("NIGHTSHIFT_LOCAL_DIR") or ROOT / ".local"))
    try:
        if command == "up":
            description = stack.up()
            print(f"The stack is running: {description['base_url']} (details in {stack.description})")
        elif command == "down":
            stack.down()
        else:
            for line in stack.logs():
                print(line, flush=True)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
