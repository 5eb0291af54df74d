"""The demo: 200 questions about Python's standard library, answered as one batch on the local stack.

`make demo` starts the stack and runs this. It does what a user would do: write a JSONL file, hand it to
`nightshift run`, read the answers, and take the signed webhook that says the batch has ended.
"""

import ast
import http.server
import json
import os
import queue
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from openai import APIConnectionError, InvalidWebhookSignatureError, OpenAI

from local.stack import MODEL, ROOT, Stack

LINES = 200
WEBHOOK_SECONDS = 30
# Modules written in Python with good docstrings; they are read as text, never imported.
MODULES = (
    *("json", "pathlib", "statistics", "textwrap", "shutil", "random", "heapq", "functools", "tempfile", "zipfile"),
    *("datetime", "argparse", "inspect", "threading", "subprocess", "difflib", "fractions", "calendar", "collections"),
    *("csv", "configparser", "contextlib", "http.client", "urllib.parse", "logging", "tarfile", "uuid", "ast", "os"),
)

Webhook = tuple[dict[str, str], str]


def docstrings() -> Iterator[tuple[str, str]]:
    """The name and the docstring of public functions and classes, such as ``json.loads``."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        path = library.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                text = " ".join((ast.get_docstring(node) or "").split())
                if text:
                    yield f"{module}.{node.name}", text


def write_requests(path: Path) -> dict[str, str]:
    """Write the input file; return each line's question by its custom_id."""
    texts = dict(islice(dict(docstrings()).items(), LINES))
    questions = {name: f"Summarise in one sentence what {name} does.\n\n{text}" for name, text in texts.items()}
    with path.open("w") as file:
        for name, question in questions.items():
            body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
            line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return questions


def receive_webhooks(received: "queue.Queue[Webhook]") -> http.server.ThreadingHTTPServer:
    """A receiver on a free port of this machine that takes every webhook it is sent."""

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(204)
            self.end_headers()
            received.put((dict(self.headers), body))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> int:
    stack = Stack(Path(os.environ.get("NIGHTSHIFT_LOCAL_DIR") or ROOT / ".local"))
    description = stack.read()
    if description is None or "base_url" not in description:
        print("The local stack is not up: `make demo` starts it.", file=sys.stderr)
        return 1
    folder = stack.folder / "demo"
    folder.mkdir(exist_ok=True)
    requests, answers = folder / "requests.jsonl", folder / "answers.jsonl"
    questions = write_requests(requests)
    print(f"Wrote {len(questions)} questions to {requests}.\n")

    client = OpenAI(base_url=description["base_url"], api_key=description["api_key"])
    # The SDK has no call for the account's webhook; any of its HTTP methods reaches the path.
    try:
        secret = client.post("/webhook/rotate", cast_to=dict)["secret"]
    except APIConnectionError:
        print("The local stack does not answer: `make demo` starts it again.", file=sys.stderr)
        return 1
    received: queue.Queue[Webhook] = queue.Queue()
    server = receive_webhooks(received)
    run_id = uuid.uuid4().hex
    command = [
        *(sys.executable, "-m", "nightshift_cli", "run", str(requests), "--output", str(answers), "--local"),
        *("--callback-url", f"http://127.0.0.1:{server.server_port}/webhook", "--metadata", f"demo={run_id}"),
    ]
    print(f"$ nightshift {' '.join(command[3:])}", flush=True)
    environment = {**os.environ, "NIGHTSHIFT_LOCAL_DIR": str(stack.folder)}
    ended = subprocess.run(command, env=environment, check=False).returncode
    batch = next((batch for batch in client.batches.list() if batch.metadata == {"demo": run_id}), None)
    if ended != 0 or batch is None:
        print("The batch did not end well. Is the stack up with NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS=1?", file=sys.stderr)
        return 1
    print(f"\nThe batch:\n{batch.to_json()}\n")

    print("Some of its answers (from a simulator, unless UPSTREAM_BASE_URL names a model's real API):\n")
    answered = [json.loads(line) for line in answers.read_text().splitlines()]
    for line in answered[:3]:
        print(f"  {line['custom_id']}")
        print(f"    asked:    {' '.join(questions[line['custom_id']].split())[:90]}...")
        print(f"    answered: {line['response']['body']['choices'][0]['message']['content']}")

    try:
        headers, body = received.get(timeout=WEBHOOK_SECONDS)
        event = client.webhooks.unwrap(body, headers, secret=secret)
    except queue.Empty:
        print(f"\nNo webhook came within {WEBHOOK_SECONDS} s.", file=sys.stderr)
        return 1
    except InvalidWebhookSignatureError as error:
        print(f"\nA webhook came, but its signature is wrong: {error}", file=sys.stderr)
        return 1
    finally:
        server.shutdown()
        server.server_close()
    about = json.loads(body)["data"]["id"]
    print(f"\nThe webhook that came, its signature verified by the OpenAI SDK:\n  {event.id} {event.type} {about}")

    if about != batch.id:
        print("\nIt is about another batch.", file=sys.stderr)
        return 1
    counts = batch.request_counts
    if batch.status != "completed" or counts is None or not counts.completed == counts.total == len(answered) == LINES:
        print(f"\nNot all {LINES} lines were answered.", file=sys.stderr)
        return 1
    print(f"""
All {LINES} of {LINES} lines were answered. Where to go next:
  nightshift run --local your.jsonl -o answers.jsonl    your own batch (model {MODEL})
  README.md, docs/                                      how it works, and how to deploy it to AWS
  make logs                                             what the functions are doing
  make down                                             stop the local stack""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
