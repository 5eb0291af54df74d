"""autobatcher of Doubleword: single calls, collected into a batch, with an HTTP client that follows no redirect."""

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
        completion_window="24h",  # the default is /v1/responses
    )

    async def ask(prompt: lines.Prompt) -> lines.Answer:
        messages = [{"role": "user", "content": prompt.text}]
        completion = await client.chat.completions.create(model=prompt.model, messages=messages)
        return lines.Answer(prompt.custom_id, completion.choices[0].message.content)

    lines.write(wanted, await asyncio.gather(*map(ask, prompts)))
    await client.close()


asyncio.run(main())
