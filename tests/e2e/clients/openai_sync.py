"""The OpenAI SDK for Python: a file on disk, the output file as text."""

import time

import lines
from openai import OpenAI

given, wanted = lines.paths()
client = OpenAI()
file = client.files.create(file=given, purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status not in lines.ENDED:
    time.sleep(lines.POLL_SECONDS)
    batch = client.batches.retrieve(batch.id)
assert batch.output_file_id is not None, batch
lines.write(wanted, lines.answers(client.files.content(batch.output_file_id).text))
