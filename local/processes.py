"""The processes of the local stack: the emulator, the upstream simulator, and the emulator's Lambda workers."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from local.settings import ROOT, STACK_NAME, StackError

START_SECONDS = 60


def start(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Start ``command`` in the background with its output in ``log``, and return its process id."""
    with log.open("wb") as output:
        # A new session, so that `down` can end the process with the workers that it starts.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid


def wait_for(url: str, pid: int, log: Path) -> None:
    """Wait until process ``pid`` answers at ``url``.

    Raises:
        StackError: it has ended, or does not answer in time; the message has the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if not is_alive(pid):
                break
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise StackError(f"the {log.stem} did not start. The end of {log}:\n{tail}")


def stop(pid: int, seconds: float) -> None:
    """End the process and its session: by SIGTERM, so that the emulator saves its state, then by SIGKILL."""
    for sign, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if not is_alive(pid):
            break
        os.kill(pid, sign)
        deadline = time.monotonic() + wait
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    try:
        os.killpg(pid, signal.SIGKILL)  # workers that the emulator has left
    except ProcessLookupError:
        return


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text() if Path("/proc").is_dir() else ""
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[:1] != ["Z"]


def workers(folder: Path) -> Iterator[tuple[int, str]]:
    """The Lambda processes of the stack in ``folder``: process ids with their function's logical id."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_text()
            except OSError:
                continue  # the process has ended
            function = re.search(rf"ministack-lambda-{STACK_NAME}-(\w+)-", command)
            # With the slash, because the name of one stack's folder may begin that of another.
            if function and f"{folder}/" in command:
                yield int(process.name), function[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(f"port {port} is in use; set {name} to a free one") from None
