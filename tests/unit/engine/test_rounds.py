"""What follows a round of chunks, and how long the pauses are."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.engine import pauses
from nightshift.engine.rounds import ChunkEnd, Round, pause_after
from nightshift.routes import health as route_health

MACHINE = json.loads((Path(__file__).parents[3] / "statemachines/run_batch.asl.json").read_text())
# List prices of us-east-1: a state transition, and a GB-second and a request of Lambda on arm64.
TRANSITION, GB_SECOND, REQUEST = 25e-6, 13.3334e-6, 0.2e-6
ENDS = st.builds(ChunkEnd, st.sampled_from(["done", "park", "failed"]), st.integers(0, 900))


@given(st.lists(ENDS), st.integers(0, 30))
def test_a_round_follows_what_is_not_done(ends: list[ChunkEnd], before: int) -> None:
    failures = before + 1 if any(end.state == "failed" for end in ends) else 0
    pause = pause_after(ends, failures)
    assert (pause is None) == all(end.state == "done" for end in ends)
    assert pause is None or 1 <= pause <= 900
    for end in ends:
        assert end.state != "park" or (pause is not None and pause <= max(1, end.wait_seconds))


@given(st.lists(ENDS, max_size=4), st.integers(0, 6))
def test_a_chunk_of_which_nothing_is_known_failed(chunks: list[ChunkEnd], count: int) -> None:
    only = ChunkEnd(None)
    done = Round(account_id="a", batch_id="b", execution=0, failures=0, only_chunk=only, chunks=chunks)
    ends = done.ends(count)
    assert ends[: len(chunks)] == chunks
    assert [end.state for end in ends[len(chunks) :]] == ["failed"] * max(0, count - len(chunks))


@given(st.integers(1, 10_000), st.integers())
def test_pauses_grow_to_ten_minutes(count: int, seed: int) -> None:
    seconds = pauses.after_failures(count, random.Random(seed))
    whole = min(600, 20 * 2 ** min(count - 1, 10))
    assert whole / 2 <= seconds <= whole


def transitions(states: dict[str, Any], start: str, choices: dict[str, str]) -> int:
    """How many states are entered from ``start`` on, with the successor that is chosen at each choice."""
    name, entered = start, 0
    while name:
        state = states[name]
        entered += 1
        name = choices.get(name) or state.get("Next") or ""
    return entered


def test_transitions_of_a_batch_of_one_chunk() -> None:
    ways = {"WhatToRun": "RunOnlyChunk", "IsOnlyChunkDone": "EndBatch"}
    assert transitions(MACHINE["States"], MACHINE["StartAt"], ways) == 4


def test_the_only_chunk_that_is_done_ends_the_batch() -> None:
    """The state EndBatch follows it, which does not look whether the batch goes on."""
    done = Round(account_id="a", batch_id="b", execution=0, failures=3, only_chunk=ChunkEnd("done"), chunks=[])
    assert pause_after(done.ends(1), 0) is None


def test_a_day_of_waiting_costs_less_than_a_cent() -> None:
    ways = {"IsOnlyChunkDone": "WaitForOnlyChunk", "WaitForOnlyChunk": ""}
    states = MACHINE["States"] | {"WaitForOnlyChunk": {}}
    visit = transitions(states, "RunOnlyChunk", ways)
    assert visit == 3
    visits, waited = 0, 0.0
    while waited < 86_400:  # on a broken route
        visits, waited = visits + 1, waited + route_health.pause_after(visits)
    worker = 0.375 * 1.0 * GB_SECOND + REQUEST  # 384 MB, a second with its start
    assert visits * (visit * TRANSITION + worker) == pytest.approx(0.0083, abs=0.0005)
