"""The console and the API's reference as files that the API serves."""

import base64
import gzip
from pathlib import Path

import pytest

from functions.api import app as api
from tests.integration.support import Reply, gateway, http_event


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as ``make`` builds it."""
    assets = tmp_path / "console" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "console.html").write_text("<title>Nightshift</title>")
    (tmp_path / "docs.html").write_text("<title>Nightshift API</title>")
    (assets / "console-AbC_1.js").write_text("export const moon = '☾';" * 100)
    (assets / "secret.txt").write_text("no")
    monkeypatch.setattr(api, "_SITE", tmp_path)


def get(path: str, **headers: str) -> Reply:
    event = http_event("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    event["headers"].pop("Authorization", None)
    return gateway(event)


@pytest.mark.parametrize("path", ["/console", "/docs"])
def test_a_page_may_do_little_and_is_asked_for_each_time(path: str) -> None:
    page = get(path)
    assert page.status == 200
    assert page.body.startswith("<title>Nightshift")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    connects = next(each for each in policy.split("; ") if each.startswith("connect-src"))
    assert connects.startswith("connect-src 'self' http")
    assert len(connects.split()) == 3, "itself and the bucket"


def test_an_asset_is_kept_for_a_year() -> None:
    asset = get("/console/assets/console-AbC_1.js")
    assert asset.status == 200
    assert asset.headers["content-type"] == "text/javascript; charset=utf-8"
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_what_a_browser_gets_is_compressed() -> None:
    asset = get("/console/assets/console-AbC_1.js", Accept_Encoding="gzip, deflate, br")
    assert asset.headers["content-encoding"] == "gzip"
    assert gzip.decompress(base64.b64decode(asset.body)).decode() == "export const moon = '☾';" * 100


@pytest.mark.parametrize("name", ["none.js", "secret.txt", "..%2Fapp.js", "..js", ".js", "a" * 200 + ".js", "%00.js"])
def test_nothing_else_is_served(name: str) -> None:
    assert get(f"/console/assets/{name}").status == 404


def test_a_stack_may_leave_the_console_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE", "off")
    assert get("/console").error["code"] == "unknown_url"
    assert get("/docs").status == 200
