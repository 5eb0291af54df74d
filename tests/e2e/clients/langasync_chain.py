"""langasync: a LangChain chain, its batch polled with an HTTP client that follows no redirect."""

import asyncio

import lines
from langasync import BatchPoller, batch_chain
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI


async def main() -> None:
    given, wanted = lines.paths()
    prompts = lines.prompts(given)
    chain = batch_chain(ChatOpenAI(model=prompts[0].model) | StrOutputParser())
    await chain.submit([prompt.text for prompt in prompts])
    (done,) = [each async for each in BatchPoller().wait_all()]
    assert done.results is not None, done
    found = [lines.Answer(prompt.custom_id, text) for prompt, text in zip(prompts, done.results, strict=True)]
    lines.write(wanted, found)


asyncio.run(main())
