"""instructor's batch processor: requests built in memory, answers as objects of a pydantic model."""

import time

import lines
from instructor.batch import BatchProcessor
from pydantic import BaseModel


class Sentence(BaseModel):
    text: str


given, wanted = lines.paths()
prompts = lines.prompts(given)
processor = BatchProcessor(f"openai/{prompts[0].model}", Sentence)
# The upstream simulator repeats its prompt, so the prompt is the JSON object that a model would answer with.
conversations = [[{"role": "user", "content": Sentence(text=prompt.text).model_dump_json()}] for prompt in prompts]
batch_id = processor.submit_batch(processor.create_batch_from_messages(conversations))
while processor.get_batch_status(batch_id)["status"] not in lines.ENDED:
    time.sleep(lines.POLL_SECONDS)
results = processor.get_results(batch_id)
assert all(each.success for each in results), results
lines.write(wanted, [lines.Answer(each.custom_id, each.result.text) for each in results])
