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


def told(given: dict[str, str], body: bytes = BODY) -> str:
    return receiver.told(receiver.verifier(SECRET), given, body)


def test_a_webhook_is_one_line_that_says_what_happened() -> None:
    assert told(headers()) == ("batch.completed  batch_1  completed (2 completed, 1 failed, 3 total)  evt_1  verified")


def test_during_a_rotation_either_secret_verifies() -> None:
    assert told(headers(BODY, new_secret(), SECRET)).endswith("  verified")


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
def test_what_is_not_signed_with_the_secret_is_not_verified(given: dict[str, str], why: str) -> None:
    line = told(given)

    assert "NOT verified (" in line
    assert why in line
    assert line.startswith("batch.completed  batch_1")


def test_a_batch_that_failed_has_no_counts() -> None:
    data = {"id": "batch_1", "status": "failed", "request_counts": None}
    body = json.dumps(EVENT | {"type": "batch.failed", "data": data}).encode()

    assert told(headers(body), body).startswith("batch.failed  batch_1  failed (no lines counted)  evt_1")


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"data":1,"type":2}', b"[" * 100_000, b'{"data":{"request_counts":[1]}}']
)
def test_anything_may_arrive(body: bytes) -> None:
    line = told({"Webhook-Id": "evt_\x1b[2J"}, body)

    assert line.startswith(f"{len(body)} bytes that are no event of a batch  evt_\N{REPLACEMENT CHARACTER}[2J")
    assert "NOT verified" in line


@pytest.mark.parametrize("secret", ["whsec_", "whsec_x", "whsec_ä", ""])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(CliError, match="secret"):
        receiver.verifier(secret)


def exchange(request: bytes, answer: int = 200) -> str:
    """The first line of what the receiver answers to a request, over a pair of sockets."""
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
def test_the_receiver_prints_what_arrives_and_answers_as_it_was_told(
    capsys: pytest.CaptureFixture[str], answer: int
) -> None:
    assert exchange(posted(BODY), answer).split()[1] == str(answer)

    shown, said = capsys.readouterr()
    assert shown.split("  ", 1)[1] == told(headers()) + "\n"
    assert said == ""


@pytest.mark.parametrize("length", ["", "-1", "x", "1048577", "9" * 5000])
def test_a_body_of_no_good_length_is_not_read(capsys: pytest.CaptureFixture[str], length: str) -> None:
    assert exchange(posted(b"", **{"Content-Length": length})).split()[1] == "413"
    assert capsys.readouterr().out == ""


def test_nothing_but_a_post_is_taken() -> None:
    assert exchange(b"GET / HTTP/1.1\r\n\r\n").split()[1] == "501"


def test_the_receiver_is_on_loopback_alone() -> None:
    with receiver.Receiver(0, 200) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_sender_that_goes_away_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with receiver.Receiver(0, 200) as server:
        try:
            raise ConnectionResetError("Connection reset by peer")
        except ConnectionResetError:
            server.handle_error(None, None)

    assert capsys.readouterr() == ("A request broke off: Connection reset by peer\n", "")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[receiver.Receiver]:
    """The receivers that would have served, had nobody pressed Ctrl-C at once."""
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


def test_listening_says_where_and_ends_cleanly_with_ctrl_c(interrupted: list[receiver.Receiver]) -> None:
    result = listen("--port", "0", "--secret", SECRET, "--answer", "503")

    (server,) = interrupted
    assert (result.exit_code, result.stderr, server.answer) == (0, "", 503)
    assert result.stdout == (f"Listening. Use this as callback_url: http://127.0.0.1:{server.server_port}/\nStopped.\n")
    assert server.socket.fileno() == -1


def test_with_local_the_secret_is_rotated_and_that_is_said(
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


def test_a_port_that_is_taken_is_told_before_a_secret_is_rotated() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        result = listen("--local", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 2
    assert "Choose another: --port." in result.stderr


def test_without_a_secret_there_is_nothing_to_verify_with() -> None:
    result = listen()

    assert result.exit_code == 2
    assert "--secret" in result.stderr
