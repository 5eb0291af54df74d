import json
import socket
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift.webhooks.message import new_secret, signed_headers
from nightshift_cli import client, receiver
from nightshift_cli.errors import CliError
from nightshift_cli.main import app
from typer.testing import CliRunner, Result

SECRET = new_secret()
COUNTS = {"total": 3, "completed": 2, "failed": 1}
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "batch.completed",
    "data": {"id": "batch_1", "status": "completed", "request_counts": COUNTS},
}
BODY = json.dumps(EVENT).encode()


def headers(body: bytes = BODY, *signing: str, now: float | None = None) -> dict[str, str]:
    return signed_headers("evt_1", body, list(signing) or [SECRET], now or time.time())


def describe(given: dict[str, str], body: bytes = BODY) -> str:
    return receiver.describe(receiver.verifier(SECRET), given, body)


def test_webhook_is_one_line() -> None:
    assert describe(headers()) == (
        "batch.completed  batch_1  completed (2 completed, 1 failed, 3 total)  evt_1  verified"
    )


def test_either_secret_verifies_in_a_rotation() -> None:
    assert describe(headers(BODY, new_secret(), SECRET)).endswith("  verified")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (headers(BODY, new_secret()), "No matching signature found"),
        (headers(BODY + b" "), "No matching signature found"),
        (headers(now=time.time() - 301), "Message timestamp too old"),
        (headers(now=time.time() + 900), "Message timestamp too new"),
        (headers() | {"webhook-timestamp": "soon"}, "Invalid Signature Headers"),
        (headers() | {"webhook-signature": "v1"}, "not enough values"),
        (headers() | {"webhook-signature": "v1,xx"}, "padding"),
        ({}, "Missing required headers"),
    ],
)
def test_wrong_signature_is_not_verified(given: dict[str, str], why: str) -> None:
    line = describe(given)

    assert "NOT verified (" in line
    assert why in line
    assert line.startswith("batch.completed  batch_1")


def test_failed_batch_has_no_counts() -> None:
    data = {"id": "batch_1", "status": "failed", "request_counts": None}
    body = json.dumps(EVENT | {"type": "batch.failed", "data": data}).encode()

    assert describe(headers(body), body).startswith("batch.failed  batch_1  failed (no lines counted)  evt_1")


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"data":1,"type":2}', b"[" * 100_000, b'{"data":{"request_counts":[1]}}']
)
def test_any_body_is_described(body: bytes) -> None:
    line = describe({"Webhook-Id": "evt_\x1b[2J"}, body)

    assert line.startswith(f"{len(body)} bytes that are not a batch event  evt_\N{REPLACEMENT CHARACTER}[2J")
    assert "NOT verified" in line


@pytest.mark.parametrize("secret", ["whsec_", "whsec_x", "whsec_ä", ""])
def test_invalid_secret_is_refused(secret: str) -> None:
    with pytest.raises(CliError, match="secret"):
        receiver.verifier(secret)


def exchange(request: bytes, answer: int = 200) -> str:
    """The first line of the receiver's answer to a request, over a pair of sockets."""
    with receiver.Receiver(0, answer) as server:
        server.verifier = receiver.verifier(SECRET)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(request)
            ours.shutdown(socket.SHUT_WR)
            receiver.Handler(theirs, ("127.0.0.1", 1), server)
            return ours.recv(65536).decode().splitlines()[0]


def posted(body: bytes, **more: str) -> bytes:
    lines = [f"{name}: {value}" for name, value in {**headers(body), "Content-Length": str(len(body)), **more}.items()]
    return "\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode() + body


@pytest.mark.parametrize("answer", [200, 410, 500])
def test_receiver_prints_and_answers(capsys: pytest.CaptureFixture[str], answer: int) -> None:
    assert exchange(posted(BODY), answer).split()[1] == str(answer)

    shown, said = capsys.readouterr()
    assert shown.split("  ", 1)[1] == describe(headers()) + "\n"
    assert said == ""


@pytest.mark.parametrize("length", ["", "-1", "x", "1048577", "9" * 5000])
def test_body_of_invalid_length_is_not_read(capsys: pytest.CaptureFixture[str], length: str) -> None:
    assert exchange(posted(b"", **{"Content-Length": length})).split()[1] == "413"
    assert capsys.readouterr().out == ""


def test_only_post_is_accepted() -> None:
    assert exchange(b"GET / HTTP/1.1\r\n\r\n").split()[1] == "501"


def test_receiver_listens_on_loopback_only() -> None:
    with receiver.Receiver(0, 200) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_disconnected_sender_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with receiver.Receiver(0, 200) as server:
        try:
            raise ConnectionResetError("Connection reset by peer")
        except ConnectionResetError:
            server.handle_error(None, None)

    assert capsys.readouterr() == ("A request ended early: Connection reset by peer\n", "")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[receiver.Receiver]:
    """The receivers that were started; each is stopped by Ctrl-C at once."""
    served: list[receiver.Receiver] = []

    def stop(self: receiver.Receiver) -> None:
        served.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(receiver.Receiver, "serve_forever", stop)
    return served


def listen(*options: str) -> Result:
    return CliRunner().invoke(app, ["webhooks", "listen", *options], catch_exceptions=False)


def signed_by(server: receiver.Receiver) -> str:
    return server.verifier.sign("evt_1", datetime.fromtimestamp(0, UTC), "{}")


def test_listen_prints_its_url_and_ends_cleanly(interrupted: list[receiver.Receiver]) -> None:
    result = listen("--port", "0", "--secret", SECRET, "--answer", "503")

    (server,) = interrupted
    assert (result.exit_code, result.stderr, server.answer) == (0, "", 503)
    assert result.stdout == (f"Listening. Use this as callback_url: http://127.0.0.1:{server.server_port}/\nStopped.\n")
    assert server.socket.fileno() == -1


def test_local_rotates_the_secret_and_says_so(
    interrupted: list[receiver.Receiver], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests: list[httpx.Request] = []

    def api(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"object": "webhook", "url": None, "secret": SECRET})

    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(api)))
    monkeypatch.setenv("NIGHTSHIFT_LOCAL_DIR", str(tmp_path))
    (tmp_path / "stack.json").write_text(json.dumps({"base_url": "http://localhost:1/v1", "api_key": "sk-local"}))

    result = listen("--local", "--port", "0")

    assert result.exit_code == 0
    assert [(request.method, str(request.url)) for request in requests] == [
        ("POST", "http://localhost:1/v1/webhook/rotate")
    ]
    assert "was rotated" in result.stdout
    assert SECRET in result.stdout
    assert signed_by(interrupted[0]) == receiver.verifier(SECRET).sign("evt_1", datetime.fromtimestamp(0, UTC), "{}")


def test_taken_port_does_not_rotate_the_secret() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        result = listen("--local", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 2
    assert "Choose another with --port." in result.stderr


def test_listen_needs_a_secret() -> None:
    result = listen()

    assert result.exit_code == 2
    assert "--secret" in result.stderr
