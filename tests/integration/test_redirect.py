"""Downloads that S3 serves: it refuses a request with a signed URL and an Authorization header (two mechanisms)."""

import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from openai import OpenAI

from tests.integration.support import Caller, gateway, http_event

LARGE = b'{"a": 1}\n' * 250_000


class Gateway(BaseHTTPRequestHandler):
    """The API on one port, and an S3 on another that accepts only signed URLs."""

    server: "Site"

    def do_GET(self) -> None:
        self.serve()

    def do_HEAD(self) -> None:
        self.serve()

    def serve(self) -> None:
        if "X-Amz-Signature" in self.path:
            self.server.authorizations.append(self.headers.get("Authorization"))
            if self.headers.get("Authorization"):
                self.send(400, b"<Error><Code>InvalidArgument</Code>Only one auth mechanism allowed</Error>", {})
            else:
                self.send(200, LARGE, {"Content-Type": "application/jsonl"})
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        reply = gateway(http_event(self.command, self.path.removeprefix("/v1"), headers=headers))
        named = {name: value for name, value in reply.headers.items() if name != "content-length"}
        if "location" in named:
            url = urllib.parse.urlsplit(named["location"])
            named["location"] = f"{self.server.s3}{url.path}?{url.query}"
        self.send(reply.status, reply.body.encode(), named)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Print nothing."""


@dataclass
class Seen:
    base_url: str
    authorizations: list[str | None] = field(default_factory=list)


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, authorizations: list[str | None], s3: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Gateway)
        self.authorizations = authorizations
        self.s3 = s3
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def site() -> Iterator[Seen]:
    authorizations: list[str | None] = []
    s3 = Site(authorizations)
    # Another host name than S3's, as on AWS: clients drop the header where the host changes.
    api = Site(authorizations, s3.url)
    yield Seen(f"http://localhost:{api.server_address[1]}/v1", authorizations)
    for server in (api, s3):
        server.shutdown()
        server.server_close()


def test_the_sdk_drops_the_key(alice: Caller, site: Seen) -> None:
    client = OpenAI(base_url=site.base_url, api_key=alice.api_key)
    assert client.files.content(alice.upload(LARGE)).content == LARGE
    assert site.authorizations == [None]


def test_curl_drops_the_key(alice: Caller, site: Seen) -> None:
    url = f"{site.base_url}/files/{alice.upload(LARGE)}/content"
    command = ["curl", "-sSL", url, "-H", f"Authorization: Bearer {alice.api_key}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == LARGE
    assert site.authorizations == [None]


def test_a_client_that_keeps_the_key_is_refused(alice: Caller, site: Seen) -> None:
    """As wget and urllib: the body of the redirect describes the right way."""
    key = {"Authorization": f"Bearer {alice.api_key}"}
    redirect = httpx.get(f"{site.base_url}/files/{alice.upload(LARGE)}/content", headers=key)
    assert httpx.get(redirect.headers["location"], headers=key).status_code == 400
    assert "without the Authorization header" in redirect.json()["message"]
    assert httpx.get(redirect.headers["location"]).content == LARGE


def test_a_small_file_needs_no_redirect(alice: Caller, site: Seen) -> None:
    key = {"Authorization": f"Bearer {alice.api_key}"}
    reply = httpx.get(f"{site.base_url}/files/{alice.upload(b'{}')}/content", headers=key)
    assert (reply.status_code, reply.content) == (200, b"{}")
