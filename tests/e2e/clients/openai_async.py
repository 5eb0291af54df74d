"""The OpenAI SDK for Python, async: bytes that have no name, the output file line by line."""

import asyncio

import lines
from openai import AsyncOpenAI


async def main() -> None:
    given, wanted = lines.paths()
    async with AsyncOpenAI() as client:
        file = await client.files.create(file=given.read_bytes(), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status not in lines.ENDED:
            await asyncio.sleep(lines.POLL_SECONDS)
            batch = await client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None, batch
        async with client.files.with_streaming_response.content(batch.output_file_id) as response:
            output = "\n".join([line async for line in response.iter_lines()])
    lines.write(wanted, lines.answers(output))


asyncio.run(main())
