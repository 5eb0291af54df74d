"""How many connections a process may open."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from nightshift.upstream import sockets


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit; the limits are put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def opened() -> int:
    return len(os.listdir("/dev/fd"))


def test_there_is_room_for_what_the_process_may_still_open(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened() + sockets.RESERVED + 20, hard))
    assert sockets.room() == 20
    with open(os.devnull), open(os.devnull):
        assert sockets.room() == 18
    assert sockets.room() == 20


def test_one_request_is_always_sent(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened() + 1, hard))
    assert sockets.room() == 1


def test_no_file_may_be_left_to_count_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", too_many)
    monkeypatch.setattr(os, "open", too_many)
    assert sockets.room() == 1
    assert sockets.is_full()


def test_there_may_be_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sockets.room() > 1_000
    assert not sockets.is_full()


def test_the_last_files_are_not_for_connections(hard: int) -> None:
    highest = max(int(number) for number in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, hard))
    assert not sockets.is_full()
    with ExitStack() as files:
        while not sockets.is_full():
            files.enter_context(open(os.devnull))
        for _ in range(sockets.LAST):
            files.enter_context(open(os.devnull))
        with pytest.raises(OSError, match="Too many open files"):
            open(os.devnull)  # noqa: SIM115 (it cannot be opened)
        assert sockets.room() == 1
    assert not sockets.is_full()
