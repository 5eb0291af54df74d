"""`make up` leaves a stack that serves, or nothing."""

from pathlib import Path
from typing import Any

import pytest

from local import deployment, stack
from local.settings import StackError


def test_what_fails_to_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pids = iter([101, 102])
    stopped: list[int] = []

    def fails(*_: Any) -> None:
        raise StackError("Parameter SyncValidationSeconds failed to satisfy constraint")

    monkeypatch.setattr(stack, "start", lambda *_: next(pids))
    monkeypatch.setattr(stack, "stop", lambda pid, **_: stopped.append(pid))
    monkeypatch.setattr(stack, "require_free", lambda *_: None)
    monkeypatch.setattr(stack, "wait_for", lambda *_: None)
    monkeypatch.setattr(deployment, "digest", lambda _: "digest")
    monkeypatch.setattr(deployment, "deploy", fails)
    local = stack.Stack(tmp_path)

    with pytest.raises(StackError, match="SyncValidationSeconds"):
        local.up()

    assert stopped == [101, 102]
    assert local.read() is None
