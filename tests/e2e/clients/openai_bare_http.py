"""The OpenAI SDK for Python with an HTTP client of the caller's own, which follows no redirect, as behind a proxy.

The other habits of such callers are here too: a stream that has no name, and a query parameter that Azure needs.
"""

import io
import time

import httpx
import lines
from openai import OpenAI

given, wanted = lines.paths()
client = OpenAI(http_client=httpx.Client(), default_query={"api-version": "2025-04-01-preview"})
file = client.files.create(file=io.BytesIO(given.read_bytes()), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
assert file.id in [each.id for each in client.files.list().data]
assert batch.id in [each.id for each in client.batches.list().data]
while batch.status not in lines.ENDED:
    time.sleep(lines.POLL_SECONDS)
    batch = client.batches.retrieve(batch.id)
assert batch.output_file_id is not None, batch
lines.write(wanted, lines.answers(client.files.content(batch.output_file_id).text))
