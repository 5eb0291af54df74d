"""openai-batch of Parasail: a file on disk, sent as bytes without a name, submitted, awaited and downloaded."""

import os

import lines
from openai_batch import Batch
from openai_batch.providers import Provider

given, wanted = lines.paths()
provider = Provider(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
downloaded = wanted.with_suffix(".downloaded")
with Batch(submission_input_file=str(given), output_file=str(downloaded), provider=provider) as work:
    batch, output_path, error_path = work.submit_wait_download(interval=lines.POLL_SECONDS)
assert (output_path, error_path) == (str(downloaded), None), batch
lines.write(wanted, lines.answers(downloaded.read_text()))
