"""Programs of the field, each from file to file, unpatched: tests/e2e/clients, run side by side.

The programs of the OpenAI SDK run with openai 3, which is the project's own. The other clients need openai 2:
`make install` installs their environment into .local/clients. The two versions take an HTTP client in different ways,
so that program runs with both.

curator (bespokelabs-curator 0.1.31) is not among them: it reads ``request_counts.failed`` of the batch that create
returns, and the contract has null there while a batch is validating.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from local.settings import ROOT
from tests.e2e.conftest import Local, request_line

FOLDER = ROOT / "tests" / "e2e" / "clients"
OPENAI_3 = sys.executable
OPENAI_2 = str(ROOT / ".local" / "clients" / "bin" / "python")
PROGRAMS = {
    "openai-3-sync": (OPENAI_3, "openai_sync.py"),
    "openai-3-async": (OPENAI_3, "openai_async.py"),
    "openai-3-bare-http": (OPENAI_3, "openai_bare_http.py"),
    "openai-2-bare-http": (OPENAI_2, "openai_bare_http.py"),
    "litellm": (OPENAI_2, "litellm_sdk.py"),
    "instructor": (OPENAI_2, "instructor_processor.py"),
    "parasail": (OPENAI_2, "parasail.py"),
    "langasync": (OPENAI_2, "langasync_chain.py"),
    "autobatcher": (OPENAI_2, "autobatcher_client.py"),
    "autobatcher-responses": (OPENAI_2, "autobatcher_responses.py"),
}
# More at once would be slower: the emulator starts a process for each concurrent call of a function, and nine programs
# at once cost it 65 s of CPU, three 30 s.
AT_ONCE = 3
SECONDS = 120
# The upstream simulator answers with the prompt's first sentence, which is here all of it.
SENTENCES = {f"request-{number}": f"Sentence {number}: naïve, 日本語, 🙂." for number in range(12)}


class Run(NamedTuple):
    done: subprocess.CompletedProcess[str]
    output: Path


@pytest.fixture(scope="module")
def runs(local_stack: Local, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every program's run, by its name in ``PROGRAMS``."""
    local_stack.upstream.reset()
    folder = tmp_path_factory.mktemp("clients")
    given = folder / "input.jsonl"
    given.write_text("\n".join(request_line(custom_id, text) for custom_id, text in SENTENCES.items()))

    def run(name: str) -> Run:
        python, program = PROGRAMS[name]
        home = folder / name
        home.mkdir()
        output = home / "answers.jsonl"
        environment = {
            "HOME": str(home),
            "OPENAI_BASE_URL": local_stack.description["base_url"],
            "OPENAI_API_KEY": local_stack.description["api_key"],
            "LANGASYNC_BATCH_POLL_INTERVAL": "2",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads the map when it is imported
        }
        done = subprocess.run(
            [python, FOLDER / program, given, output],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Run(done, output)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(PROGRAMS, pool.map(run, PROGRAMS), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_client_gets_each_answer_once(runs: dict[str, Run], name: str) -> None:
    done, output = runs[name]
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(each["custom_id"], each["text"]) for each in answers] == list(SENTENCES.items())
