"""`nightshift console`: the browser gets the key, and no command line has it."""

import threading
import webbrowser

import httpx
import pytest
from nightshift_cli import console
from nightshift_cli.connection import Connection
from nightshift_cli.main import app
from typer.testing import CliRunner

CONNECTION = Connection("https://api.test/v1/", "sk-ns-a/b+c")
OPTIONS = ["--base-url", CONNECTION.base_url, "--api-key", CONNECTION.api_key]


class Browser:
    """Asks for what it is told to open, after some wrong guesses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.answers: list[httpx.Response] = []
        self._thread: threading.Thread | None = None
        monkeypatch.setattr(webbrowser, "open", self.open)

    def open(self, url: str) -> bool:
        self.opened.append(url)
        self._thread = threading.Thread(target=self._ask, args=(url,))
        self._thread.start()
        return True

    def _ask(self, url: str) -> None:
        guesses = [str(httpx.URL(url).copy_with(path=path)) for path in ("/", "/favicon.ico", "/ü")]
        self.answers = [httpx.get(each) for each in (*guesses, url)]

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join()


def test_the_browser_is_led_to_the_console_with_the_key_behind_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(monkeypatch)
    assert console.open_signed_in(CONNECTION)
    browser.join()
    assert [answer.status_code for answer in browser.answers] == [404, 404, 404, 302]
    assert browser.answers[-1].headers["location"] == "https://api.test/v1/console#key=sk-ns-a%2Fb%2Bc"
    assert not any("location" in answer.headers for answer in browser.answers[:-1])
    (opened,) = browser.opened
    assert opened.startswith("http://127.0.0.1:")
    assert "sk-ns" not in opened


def test_the_command_prints_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(monkeypatch)
    result = CliRunner().invoke(app, ["console", *OPTIONS])
    browser.join()
    assert (result.exit_code, result.output) == (0, "Opened https://api.test/v1/console.\n")


def test_without_a_browser_the_address_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    result = CliRunner().invoke(app, ["console", *OPTIONS])
    assert result.exit_code == 2
    assert "https://api.test/v1/console" in result.output
    assert "sk-ns" not in result.output
    result = CliRunner().invoke(app, ["console", "--no-browser", *OPTIONS])
    assert (result.exit_code, result.output) == (0, "https://api.test/v1/console\n")


def test_a_browser_that_never_asks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    assert not console.open_signed_in(CONNECTION, seconds=0)
