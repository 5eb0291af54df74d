"""The LiteLLM SDK: file, batch and content, with the form field that its proxy needs."""

import time

import lines
import litellm

given, wanted = lines.paths()
with given.open("rb") as content:
    file = litellm.create_file(
        file=content,
        purpose="batch",
        custom_llm_provider="openai",
        extra_body={"custom_llm_provider": "openai"},
    )
batch = litellm.create_batch(
    completion_window="24h",
    endpoint="/v1/chat/completions",
    input_file_id=file.id,
    custom_llm_provider="openai",
)
while batch.status not in lines.ENDED:
    time.sleep(lines.POLL_SECONDS)
    batch = litellm.retrieve_batch(batch_id=batch.id, custom_llm_provider="openai")
assert batch.output_file_id is not None, batch
output = litellm.file_content(file_id=batch.output_file_id, custom_llm_provider="openai")
lines.write(wanted, lines.answers(output.text))
