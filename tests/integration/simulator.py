"""The upstream simulator on a port of its own, its control, and what tests do with a batch of it."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
from openai import OpenAI
from openai.types import Batch

from local.processes import free_port
from local.provider_batches import ENDED
from local.upstream import serve

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def line(custom_id: str, text: str = "Hello. And more.", **changes: Any) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | changes)


def lines(count: int) -> list[str]:
    return [line(str(number), f"Sentence {number}. And more.") for number in range(count)]


class Simulator:
    def __init__(self, port: int, control_port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._control = f"http://127.0.0.1:{control_port}/control"
        self.client = OpenAI(base_url=self.url, api_key="any", max_retries=0)

    def wait(self) -> None:
        """Wait until it serves."""
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                return self.reset()
            time.sleep(0.05)
        raise AssertionError("the simulator does not serve")

    def set(self, **settings: Any) -> None:
        httpx.put(self._control, json=settings).raise_for_status()

    def reset(self) -> None:
        httpx.delete(self._control).raise_for_status()

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = httpx.get(self._control).json()
        return report

    def create(self, input_lines: list[str], **wanted: Any) -> Batch:
        content = "\n".join(input_lines).encode()
        file = self.client.files.create(file=("in.jsonl", content), purpose="batch")
        return self.client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **wanted)

    def until(self, batch: Batch, *statuses: str) -> Batch:
        """The batch, when it has one of these statuses."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            batch = self.client.batches.retrieve(batch.id)
            if batch.status in statuses:
                return batch
            time.sleep(0.01)
        raise AssertionError(f"not within a minute: {batch}")

    def run(self, input_lines: list[str]) -> Batch:
        """A batch, when it has ended."""
        return self.until(self.create(input_lines), *ENDED)

    def read(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        return [json.loads(each) for each in self.client.files.content(file_id).text.splitlines()]


@contextmanager
def simulating() -> Iterator[Simulator]:
    port, control_port, stop = free_port(), free_port(), threading.Event()

    async def serve_until_stop() -> None:
        serving = asyncio.create_task(serve(port, control_port))
        await asyncio.to_thread(stop.wait)
        serving.cancel()
        await asyncio.wait([serving])

    thread = threading.Thread(target=asyncio.run, args=(serve_until_stop(),))
    thread.start()
    simulator = Simulator(port, control_port)
    try:
        simulator.wait()
        yield simulator
    finally:
        simulator.client.close()
        stop.set()
        thread.join()
