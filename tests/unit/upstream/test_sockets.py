"""How many connections a process may open."""

import os
import resource
from collections.abc import Iterator

import pytest
from nightshift.upstream import sockets


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_is_room_for_what_the_process_may_still_open(limits: tuple[int, int]) -> None:
    opened = len(os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + sockets.RESERVED + 20, limits[1]))
    assert sockets.room() == 20
    pipe = os.pipe()
    assert sockets.room() == 18
    for end in pipe:
        os.close(end)
    assert sockets.room() == 20


def test_one_request_is_always_sent(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 1, limits[1]))
    assert sockets.room() == 1
