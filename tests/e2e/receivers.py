"""Receivers of webhooks."""

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Answer = int | Callable[[BaseHTTPRequestHandler], None]


class Receiver:
    """A webhook receiver on loopback. It answers with ``answers``, statuses or functions, in turn, then with 200."""

    # What all of them have received.
    everything: ClassVar[list[str]] = []

    def __init__(self, answers: list[Answer], port: int = 0) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                Receiver.everything.append(f"{self.path}\n{self.headers}{body.decode(errors='replace')}")
                answer = answers.pop(0) if answers else 200
                if not isinstance(answer, int):
                    with contextlib.suppress(OSError):  # the caller has disconnected
                        answer(self)
                    return
                self.send_response(answer)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
