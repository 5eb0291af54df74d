"""The local stack: ministack, the real template on it, two accounts, a route, and the upstream simulator.

`make up` calls `python -m local.stack up`; `make down` and `make logs` do likewise. One folder (`.local`, or
NIGHTSHIFT_LOCAL_DIR) holds everything: the emulator's state, logs, the build, and `stack.json`, which describes the
running stack to its users.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local import deployment
from local.processes import free_port, is_alive, require_free, start, stop, wait_for
from local.settings import REGION, ROOT, ROOT_CREDENTIALS, STACK_NAME, StackError, emulator_python


class Stack:
    """One local stack, kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = folder / "stack.json"
        self._deployment = folder / "deployment.json"
        self._logs = folder / "logs"

    # --- up ------------------------------------------------------------------------------------------------------

    def up(self) -> dict[str, Any]:
        """Start what does not run, deploy what has changed, and write ``stack.json``."""
        port = int(os.environ.get("NIGHTSHIFT_PORT", "4566"))
        digest = deployment.digest(port)
        running = self.read()
        is_current = self._deployed().get("digest") == digest
        if running and is_current and all(is_alive(pid) for pid in running["pids"].values()):
            return running
        self.down()
        if is_current and (self.folder / "state").is_dir():
            try:
                return self._start(port, digest, self._deployed()["keys"])
            except deployment.StateLostError:
                pass  # The emulator was killed before it saved its state.
        return self._start(port, digest, None)

    def _start(self, port: int, digest: str, keys: dict[str, str] | None) -> dict[str, Any]:
        """Start everything: from the saved state if ``keys`` are given, otherwise from scratch. Or leave nothing."""
        try:
            return self._started(port, digest, keys)
        except BaseException:
            self.down()
            raise

    def _started(self, port: int, digest: str, keys: dict[str, str] | None) -> dict[str, Any]:
        self._logs.mkdir(parents=True, exist_ok=True)
        if keys is None:
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        else:
            self._forget_stream_positions()
        upstream_port = int(os.environ.get("NIGHTSHIFT_UPSTREAM_PORT") or free_port())
        control_port = free_port()
        require_free(port, "NIGHTSHIFT_PORT")
        require_free(upstream_port, "NIGHTSHIFT_UPSTREAM_PORT")
        pids = {
            "emulator": self._start_emulator(port),
            "upstream": self._start_upstream(upstream_port, control_port),
        }
        endpoint = f"http://127.0.0.1:{port}"
        # Written early, so that `down` finds the processes if a later step fails.
        self._describe({"aws_endpoint_url": endpoint, "region": REGION, "stack_name": STACK_NAME, "pids": pids})
        wait_for(f"{endpoint}/_ministack/health", pids["emulator"], self._log("emulator"))
        wait_for(f"http://127.0.0.1:{control_port}/control", pids["upstream"], self._log("upstream"))
        if keys is None:
            deployment.deploy(endpoint, self.folder / "build")
        outputs = deployment.stack_outputs(endpoint)
        scheme = "https" if os.environ.get("NIGHTSHIFT_UPSTREAM_CERTIFICATE") else "http"
        upstream_url = os.environ.get("UPSTREAM_BASE_URL") or f"{scheme}://127.0.0.1:{upstream_port}/v1"
        keys = deployment.provision(endpoint, outputs, upstream_url, keys)
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
        return start([str(emulator_python()), "-m", "ministack"], environment, self._log("emulator"))

    def _start_upstream(self, port: int, control_port: int) -> int:
        command = [sys.executable, "-m", "local.upstream", "--port", str(port), "--control-port", str(control_port)]
        if certificate := os.environ.get("NIGHTSHIFT_UPSTREAM_CERTIFICATE"):
            command += ["--certificate", certificate]
        return start(command, {"PATH": os.environ["PATH"]}, self._log("upstream"))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    # --- down and logs -------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop the processes that ``up`` started, by their ids, and wait until they have ended."""
        for name, pid in ((self.read() or {}).get("pids") or {}).items():
            stop(pid, seconds=20 if name == "emulator" else 5)
        self.description.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)

    def logs(self) -> Iterator[str]:
        """New lines of every function's log, as they are written."""
        description = self.read()
        if description is None:
            raise StackError("the stack is not running; start it with `make up`")
        client = deployment.client("logs", description["aws_endpoint_url"])
        since, seen = int(time.time() * 1000), set[tuple[int, str]]()
        while True:
            new = [line for line in _log_lines(client, since) if line not in seen]
            seen.update(new)
            yield from (message.rstrip() for _, message in new)
            time.sleep(1)


def _log_lines(client: Any, since: int) -> Iterator[tuple[int, str]]:
    """Every line of every function's log since ``since``, with its time; both are milliseconds since 1970."""
    for group in client.describe_log_groups()["logGroups"]:
        for event in client.filter_log_events(logGroupName=group["logGroupName"], startTime=since)["events"]:
            yield event["timestamp"], event["message"]


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
