"""autobatcher as it likes it: single calls of /v1/responses and /v1/embeddings, each collected into a batch."""

import asyncio
import os

import lines
from autobatcher import BatchOpenAI


async def main() -> None:
    given, wanted = lines.paths()
    prompts = lines.prompts(given)
    client = BatchOpenAI(
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        batch_size=len(prompts),
        poll_interval_seconds=lines.POLL_SECONDS,
        completion_window="24h",
    )

    async def ask(prompt: lines.Prompt) -> lines.Answer:
        response = await client.responses.create(model=prompt.model, input=prompt.text)
        return lines.Answer(prompt.custom_id, response.output_text)

    async def embed(prompt: lines.Prompt) -> int:
        embedded = await client.embeddings.create(model=prompt.model, input=prompt.text)
        return len(embedded.data[0].embedding)

    answers, sizes = await asyncio.gather(asyncio.gather(*map(ask, prompts)), asyncio.gather(*map(embed, prompts)))
    assert sizes == [8] * len(prompts), sizes
    lines.write(wanted, answers)
    await client.close()


asyncio.run(main())
