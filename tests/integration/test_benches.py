"""Each benchmark still runs, in its smallest size. No figure is looked at: `make bench` measures.

Those that need a whole stack are left out (api, memory), or begin with what they would have counted (cost, scale,
batch_mode).
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from nightshift.core import aws
from nightshift.core.log import logger

from bench import batch_mode, cold_start, cost, fairness, finalize, plot, report, run_chunk, scale, tails, tls, validate
from bench.emulator import emulated_aws
from bench.meter import Usage
from bench.simulation import SCENARIOS, Quotas, simulate
from bench.stack import FUNCTIONS
from tests.integration.support import invoke

Published = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True)
def stack() -> None:
    """No moto: a benchmark has an emulator of its own."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[dict[str, str]]:
    """One emulator for all; yields the environment that leads to it."""
    before = os.environ.copy()
    with emulated_aws():
        environment = os.environ.copy()
        yield environment
    os.environ.clear()
    os.environ.update(before)
    aws._client.cache_clear()


@pytest.fixture
def publishing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Published]:
    """Benches repeat nothing and write into a folder of the test. Yields what reads a subject's result."""
    repeat = report.repeat
    monkeypatch.setattr(report, "repeat", lambda runs, *_: repeat(runs, 1))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(plot, "PLOT", tmp_path / "scale.svg")
    monkeypatch.setattr("sys.argv", ["bench"])
    before, level = os.environ.copy(), logger.log_level

    def published(subject: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / f"{subject}.json").read_text())
        assert found["rows"]
        assert subject in report.tables()
        return found

    yield published
    os.environ.clear()
    os.environ.update(before)
    logger.setLevel(level)
    aws._client.cache_clear()


def on(emulator: dict[str, str], monkeypatch: pytest.MonkeyPatch, bench: ModuleType) -> None:
    """The benchmark uses the emulator that runs."""
    os.environ.update(emulator)
    aws._client.cache_clear()
    monkeypatch.setattr(bench, "emulated_aws", nullcontext)


# --- with an emulator ----------------------------------------------------------------------------------------------


def test_validate_runs(emulator: dict[str, str], publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    on(emulator, monkeypatch, validate)
    monkeypatch.setattr(validate, "LINES", 40)
    validate.main()
    assert len(publishing("validate")["targets"]) > 5


def test_finalize_runs(emulator: dict[str, str], publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    on(emulator, monkeypatch, finalize)
    few, many = finalize.FLAT[0], "long"
    monkeypatch.setattr(finalize, "KINDS", {few: (50, 4_900), many: (100, 8_000)})
    monkeypatch.setattr(finalize, "FLAT", (few, many))
    finalize.main()
    assert len(publishing("finalize")["targets"]) == 2


def test_run_chunk_runs(emulator: dict[str, str], publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the peers that need packages of their own."""
    on(emulator, monkeypatch, run_chunk)
    ideal, best = run_chunk.against_ideal, run_chunk.against_best_schedule
    monkeypatch.setattr(run_chunk, "REQUESTS", {"protocol": 300, "aiohttp": 300, run_chunk.OURS: 300})
    monkeypatch.setattr(run_chunk, "WANTED", {"aiohttp": 0.6})
    monkeypatch.setattr(run_chunk, "against_ideal", lambda *_, **__: ideal(1, 1))
    monkeypatch.setattr(run_chunk, "against_best_schedule", lambda *_: best(1, 300))
    monkeypatch.setattr(run_chunk, "MEDIAN_MS", 5)
    monkeypatch.setattr(run_chunk, "P99_MS", 20)
    run_chunk.main()
    assert len(publishing("run_chunk")["targets"]) == 3


# --- with processes of their own -----------------------------------------------------------------------------------


def test_tls_runs(publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "CONNECTIONS", (1,))  # each of four processes would take two seconds
    tls.main()
    publishing("tls")


@pytest.mark.usefixtures("publishing")
def test_each_function_answers_its_event_of_cold_start() -> None:
    """In this process: `make bench-cold_start` builds the layers and starts new ones."""
    with cold_start.canned() as server:
        asked = cold_start.first_events(server)
        assert set(asked) == {*cold_start.TARGETS, *cold_start.WRITTEN_HERE}
        for name in cold_start.TARGETS:
            server.written = {}
            answer = invoke(name, asked[name])
            assert cold_start.did_its_work(answer), f"{name}: {answer}"


# --- simulations ---------------------------------------------------------------------------------------------------


def test_tails_runs(publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "UPSTREAMS", ((10, 120),))
    monkeypatch.setattr(tails, "run", partial(tails.run, slices=1))
    tails.main()
    assert len(publishing("tails")["targets"]) == 2


def test_fairness_runs(publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    many = partial(fairness.many_batches, 6, 2, 1, 16, 40, 100, arrival=5)
    monkeypatch.setattr(fairness, "many_batches", lambda *_: many())
    fairness.main()
    assert len(publishing("fairness")["targets"]) > 5


# --- from what a run has counted -----------------------------------------------------------------------------------


def counted(lines: int) -> Usage:
    """What a batch of so many lines might use."""
    used: dict[str, float] = dict.fromkeys(FUNCTIONS, 1.0)
    return Usage(
        calls=Counter({("RunChunk", "s3", "PUT"): 10, ("RunChunk", "secretsmanager", "GetSecretValue"): 1}),
        units=defaultdict(float, {("RunChunk", "write"): 20.0}),
        invocations=Counter(FUNCTIONS),
        seconds=defaultdict(float, used | {"RunChunk": lines / 1_000}),
        slices=Counter({"done": 1}),
        cpu=defaultdict(float, used),
        transitions=4,
        took=lines / 400,
        latency=0.5,
        log_bytes=1_000,
    )


MEMORY = dict.fromkeys(FUNCTIONS, 0.5)


@pytest.mark.parametrize("long", [False, True])
def test_cost_is_published(publishing: Published, long: bool) -> None:
    cost.publish(counted(cost.LINES), MEMORY, long)
    publishing("cost_long" if long else "cost")


def test_a_run_with_real_answers_is_priced_as_it_is() -> None:
    run = counted(1_000)
    assert cost.at_latency(run, 1_000, run.latency) == run
    assert cost.at_latency(run, 1_000, 10).seconds["RunChunk"] > run.seconds["RunChunk"]


def test_scale_is_published(publishing: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batches = [scale.scale(lines, counted(lines), MEMORY) for lines in scale.SIZES]
    monkeypatch.setattr(scale, "run_sizes", lambda _: (batches, MEMORY, {1: 20.0, scale.MANY: 21.0}))
    monkeypatch.setattr(scale, "SCENARIOS", {name: (2, 500, Quotas()) for name in SCENARIOS})
    monkeypatch.setattr(
        scale, "simulate", lambda count, _, concurrency, quotas: simulate(count, 2_000, concurrency, quotas)
    )
    scale.main()
    publishing("scale")
    publishing("cost")
    assert (tmp_path / "scale.svg").read_text().startswith("<svg")


def test_batch_mode_is_published(publishing: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Mock(description={"upstream_url": "http://127.0.0.1:9/v1"})
    monkeypatch.setattr(batch_mode, "stack", lambda _: nullcontext(local))
    monkeypatch.setattr(batch_mode, "metered", lambda _: nullcontext())
    monkeypatch.setattr(cost, "memory_of", lambda _: MEMORY)
    monkeypatch.setattr(cost, "run_batch", lambda *_, **__: counted(cost.LINES))
    batch_mode.main()
    publishing("batch_mode")
