"""``Upstream.send`` against a server that misbehaves in many ways: it returns an answer and does not raise."""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme
from aiohttp import ClientResponse, connector
from nightshift.upstream import client, sockets
from nightshift.upstream.answer import MAX_ANSWER_BYTES, Answer
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.client import READ_BYTES, SMALL_ANSWER_BYTES, Upstream

from tests.integration.support import Behave, Exchange, Server, route, serving


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """A server's TLS with a certificate that aiohttp trusts."""
    authority = trustme.CA()
    authority.configure_trust(connector._SSL_CONTEXT_VERIFIED)  # made when aiohttp is imported
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> Iterator[Server]:
    """The same faults over both, because each has buffers and errors of its own."""
    with serving(tls if request.param == "https" else None) as running:
        yield running


BODY = b'{"model":"upstream-model","messages":[{"role":"user","content":"Hi."}]}'


def send(url: str, timeout_seconds: int = 5, max_answer_bytes: int = MAX_ANSWER_BYTES) -> Answer:
    async def run() -> Answer:
        budget = ByteBudget(2**25)
        used = route(url, timeout_seconds=timeout_seconds, api_key_secret="nightshift/test")
        async with Upstream(used, "key", 4, budget, max_answer_bytes=max_answer_bytes) as upstream:
            answer = await upstream.send(BODY, "batch_req_1")
        assert budget.reserved == 0
        return answer

    return asyncio.run(run())


def raw(content: bytes) -> Behave:
    return lambda exchange: exchange.raw(content)


def answer(status: int, body: bytes = b"", **headers: str) -> Behave:
    return lambda exchange: exchange.reply(status, body, **headers)


def test_a_json_answer_is_unchanged(server: Server) -> None:
    server.behave = answer(200, b'{"model": "m",\n "x": 1}', x_request_id="req_theirs")
    assert send(server.url) == Answer(200, b'{"model": "m",\n "x": 1}', "req_theirs")
    [received] = server.received
    assert (received.path, received.body) == ("/chat/completions", BODY)
    assert received.headers["authorization"] == "Bearer key"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["idempotency-key"] == "batch_req_1"


def test_a_base_url_may_end_with_a_slash(server: Server) -> None:
    send(f"{server.url}/v1/")
    assert server.received[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("body", [b"<html>fine</html>", b"", b"[1]", b'{"a":', b'{"a":"\xff"}', b"null"])
def test_a_200_without_a_json_object_fails(server: Server, body: bytes) -> None:
    server.behave = answer(200, body)
    assert send(server.url).failure == "not_json"


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a":'), id="cut-off body"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), id="cut-off chunk"),
        pytest.param(raw(b""), id="hang-up"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), id="no HTTP"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000 + b"\r\n\r\n"), id="endless header"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), id="no gzip"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"), id="no brotli"),
        pytest.param(Exchange.reset, id="reset"),
    ],
)
def test_a_broken_connection_is_broken(server: Server, behave: Behave) -> None:
    server.behave = behave
    assert send(server.url) == Answer(failure="broken")


def test_a_body_needs_no_length(server: Server) -> None:
    server.behave = raw(b'HTTP/1.0 200 OK\r\n\r\n{"a":1}')
    assert send(server.url).body == b'{"a":1}'


def test_silence_is_a_timeout(server: Server) -> None:
    server.behave = server.hang
    assert send(server.url, timeout_seconds=1) == Answer(failure="timeout")


def test_a_body_that_stalls_is_a_timeout(server: Server) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a":')
        server.hang(exchange)

    server.behave = stall
    assert send(server.url, timeout_seconds=1) == Answer(failure="timeout")


def test_a_request_without_an_answer_leaves_no_connection(server: Server) -> None:
    """A worker may open 1,024 files. TLS would wait 30 seconds for the farewell of a server that hangs."""

    async def run() -> None:
        sockets = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
        before = len(sockets)
        async with Upstream(route(server.url, timeout_seconds=1), None, 1, ByteBudget(2**25)) as upstream:
            assert await upstream.send(BODY, "batch_req_1") == Answer(failure="timeout")
            async with asyncio.timeout(5):
                while len(sockets) > before:  # noqa: ASYNC110 (nothing tells when asyncio has closed it)
                    await asyncio.sleep(0.01)

    server.behave = server.hang
    asyncio.run(run())


def test_a_trickle_is_an_answer_if_it_ends_in_time(server: Server) -> None:
    def trickle(exchange: Exchange) -> None:
        for byte in b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}':
            exchange.handler.wfile.write(bytes([byte]))

    server.behave = trickle
    assert send(server.url) == Answer(200, b'{"a":1}')


def test_an_endless_trickle_is_a_timeout(server: Server) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not server.closing.wait(0.01):
            exchange.raw(b" ")

    server.behave = trickle
    assert send(server.url, timeout_seconds=1) == Answer(failure="timeout")


def test_many_informational_answers_come_before_the_answer(server: Server) -> None:
    server.behave = raw(
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert send(server.url) == Answer(200, b"{}")


def test_a_flood_of_informational_answers_ends_with_the_time(server: Server) -> None:
    def flood(exchange: Exchange) -> None:
        while not server.closing.is_set():
            exchange.raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)

    server.behave = flood
    assert send(server.url, timeout_seconds=1) == Answer(failure="timeout")


def test_a_cancelled_request_leaves_its_connection_to_nobody(server: Server) -> None:
    async def run() -> tuple[int, Answer]:
        budget = ByteBudget(2**25)
        async with Upstream(route(server.url), None, 1, budget) as upstream:
            arrived = threading.Event()

            def hang(exchange: Exchange) -> None:
                arrived.set()
                server.hang(exchange)

            server.behave = hang
            waiting = asyncio.create_task(upstream.send(BODY, "batch_req_1"))
            await asyncio.to_thread(arrived.wait)
            waiting.cancel()
            await asyncio.wait([waiting])
            server.behave = answer(200, b'{"a":2}')
            return budget.reserved, await upstream.send(BODY, "batch_req_2")

    assert asyncio.run(run()) == (0, Answer(200, b'{"a":2}'))


def test_a_refused_connection_is_not_now() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but not listening
        assert send(f"http://127.0.0.1:{free.getsockname()[1]}") == Answer(failure="connect")


def test_who_waits_for_a_turn_to_connect_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "OPENING", 1)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.4)

    async def run(url: str) -> list[Answer]:
        async with Upstream(route(url, timeout_seconds=1), None, 4, ByteBudget(2**25)) as upstream:
            return await asyncio.gather(*(upstream.send(BODY, f"batch_req_{number}") for number in range(4)))

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and shakes no hand
        answers = asyncio.run(run(f"https://127.0.0.1:{silent.getsockname()[1]}"))
    assert answers == [Answer(failure="connect")] * 4


@pytest.mark.parametrize(("looks", "answered"), [(3, True), (1_000_000, False)])
def test_a_connection_waits_for_a_free_file(
    server: Server, monkeypatch: pytest.MonkeyPatch, looks: int, answered: bool
) -> None:
    full = iter(range(looks))
    monkeypatch.setattr(client, "FULL_SECONDS", 0.01)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.4)
    monkeypatch.setattr(sockets, "is_full", lambda: next(full, None) is not None)
    server.behave = answer(200, b'{"a":1}')
    assert send(server.url) == (Answer(200, b'{"a":1}') if answered else Answer(failure="connect"))
    assert len(server.received) == answered


def test_an_unknown_host_name_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert send("http://nowhere.example") == Answer(failure="dns")


def test_a_failed_tls_handshake_is_told_apart() -> None:
    with serving() as server:
        assert send(server.url.replace("http:", "https:")) == Answer(failure="tls")


def test_a_certificate_that_nobody_trusts_is_told_apart() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as server:
        assert send(server.url) == Answer(failure="tls")
        assert not server.received


def test_a_tls_connection_takes_little_memory(tls: ssl.SSLContext) -> None:
    """The standard library documents neither: ADR 19."""

    async def buffers(url: str) -> tuple[int, int]:
        async with Upstream(route(url), None, 1, ByteBudget(2**25)) as upstream:
            await upstream.send(BODY, "batch_req_1")
            [[(protocol, _)]] = upstream._session.connector._conns.values()  # type: ignore[union-attr]
            connection = protocol.transport._ssl_protocol  # type: ignore[union-attr]
            return len(connection._ssl_buffer), connection._incoming_high_water

    with serving(tls) as server:
        assert asyncio.run(buffers(server.url)) == (READ_BYTES, READ_BYTES)


def test_a_connection_that_waits_has_one_read_unread(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    read = Upstream._read

    async def watched(self: Upstream, response: ClientResponse, deadline: asyncio.Timeout) -> bytes | None:
        limits.append(response.content.get_read_buffer_limits()[1])
        return await read(self, response, deadline)

    monkeypatch.setattr(Upstream, "_read", watched)
    server.behave = answer(200, b'{"a":1}')
    assert send(server.url).status == 200
    assert len(limits) == 1
    assert limits[0] < READ_BYTES


def test_an_error_page_becomes_an_error(server: Server) -> None:
    server.behave = answer(502, b"<html>Bad \xff Gateway</html>")
    got = send(server.url)
    assert (got.status, got.failure) == (502, None)
    assert got.body == (
        '{"error":{"message":"<html>Bad � Gateway</html>","type":"upstream_error","param":null,"code":null}}'.encode()
    )


def test_an_error_object_is_unchanged(server: Server) -> None:
    server.behave = answer(400, b'{"error":{"message":"No."}}')
    assert send(server.url) == Answer(400, b'{"error":{"message":"No."}}')


def test_a_body_over_the_limit_is_too_long(server: Server) -> None:
    server.behave = answer(200, b'{"a":"' + b"a" * 2_000_000 + b'"}')
    assert send(server.url, max_answer_bytes=1_000_000) == Answer(failure="too_long")


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.behave = answer(307, b"", Location=f"{server.url}/elsewhere")
    assert send(server.url).status == 307
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"retry_after_ms": "1500", "Retry_After": "7"}, 1.5),
        ({"Retry_After": "Mon, 01 Jan 2024 00:00:00 GMT"}, None),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(server: Server, headers: dict[str, str], seconds: float | None) -> None:
    server.behave = answer(429, b"", **headers)
    got = send(server.url)
    assert (got.status, got.retry_after) == (429, seconds)


@pytest.mark.parametrize(
    "header",
    [
        "Mon, 99999999999 Jan 2024 00:00:00 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999",
    ],
)
def test_an_impossible_date_is_ignored(server: Server, header: str) -> None:
    server.behave = answer(429, b"", Retry_After=header)
    assert send(server.url).retry_after is None


def test_a_compression_bomb_is_too_long(server: Server) -> None:
    bomb = gzip.compress(b'{"a":"' + b"a" * 64 * 1024 * 1024 + b'"}')
    server.behave = answer(200, bomb, Content_Encoding="gzip")
    assert send(server.url) == Answer(failure="too_long")


LONG = b'{"a":"' + b"a" * 2 * SMALL_ANSWER_BYTES + b'"}'


@pytest.mark.parametrize(
    "long",
    [
        answer(200, LONG),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG)),
    ],
)
def test_a_long_answer_waits_for_the_budget(server: Server, long: Behave) -> None:
    async def run() -> tuple[list[Answer], Answer, Answer]:
        budget = ByteBudget(100)
        async with Upstream(route(server.url, timeout_seconds=1), None, 4, budget) as upstream:
            await budget.reserve(100)
            server.behave = long
            waiting = [asyncio.create_task(upstream.send(BODY, "batch_req_1")) for _ in range(2)]
            done, _ = await asyncio.wait(waiting, timeout=2)
            assert not done, "longer than the request may take"
            server.behave = answer(200, b"{}")
            small = await upstream.send(BODY, "batch_req_2")
            budget.release(100)
            answers = await asyncio.gather(*waiting)
            server.behave = long
            again = await upstream.send(BODY, "batch_req_3")
        assert budget.reserved == 0
        return answers, small, again

    assert asyncio.run(run()) == ([Answer(200, LONG)] * 2, Answer(200, b"{}"), Answer(200, LONG))


def test_a_stalled_answer_releases_its_bytes(server: Server) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (2 * len(LONG), LONG))
        server.hang(exchange)

    server.behave = stall
    assert send(server.url, timeout_seconds=1) == Answer(failure="timeout")


def test_an_impossible_length_is_broken(server: Server) -> None:
    zeros = b"0" * 5_000
    server.behave = raw(b"HTTP/1.1 200 OK\r\nContent-Length: %b%d\r\n\r\n%b" % (zeros, len(LONG), LONG))
    assert send(server.url) == Answer(failure="broken")


def test_answers_are_not_compressed(server: Server) -> None:
    send(server.url)
    assert server.received[0].headers["accept-encoding"] == "identity"


def test_a_closed_connection_is_replaced(server: Server) -> None:
    """Many servers close idle connections without notice. They have not read a request that comes too late."""
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async def run() -> list[Answer]:
        async with Upstream(route(server.url), None, 4, ByteBudget(2**25)) as upstream:
            return [await upstream.send(BODY, f"batch_req_{number}") for number in range(20)]

    server.behave = raw(length)  # ... and then the connection is closed
    assert asyncio.run(run()) == [Answer(200, b"{}")] * 20
    assert len(server.received) == 20


def test_an_unrequested_answer_is_ignored(server: Server) -> None:
    def twice(exchange: Exchange) -> None:
        exchange.reply(200, b'{"n":%d}' % len(server.received))
        exchange.handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"n":"-"}')

    async def run() -> list[bytes]:
        async with Upstream(route(server.url), None, 4, ByteBudget(2**25)) as upstream:
            answers = []
            for number in range(5):
                answers.append((await upstream.send(BODY, f"batch_req_{number}")).body)
                await asyncio.sleep(0.05)  # the unrequested one arrives
            return answers

    server.behave = twice
    assert asyncio.run(run()) == [b'{"n":%d}' % number for number in range(1, 6)]


def test_a_closed_new_connection_is_broken(server: Server) -> None:
    server.behave = raw(b"")
    assert send(server.url) == Answer(failure="broken")
    assert len(server.received) == 1


def test_an_idle_close_is_repeated_once(server: Server) -> None:
    """A request that ends its connection may be what breaks the server, so it is repeated only once."""

    def die_after_the_first(exchange: Exchange) -> None:
        exchange.complete() if len(server.received) <= 4 else exchange.reset()

    async def run() -> list[Answer]:
        async with Upstream(route(server.url), None, 8, ByteBudget(2**25)) as upstream:
            await asyncio.gather(*(upstream.send(BODY, f"batch_req_{number}") for number in range(4)))
            return [await upstream.send(BODY, "batch_req_5")]

    server.behave = die_after_the_first
    assert asyncio.run(run()) == [Answer(failure="broken")]
    assert len(server.received) == 4 + 2


def test_a_slow_break_is_not_repeated(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE_CLOSE_SECONDS", 0.0)

    def die_at_the_second(exchange: Exchange) -> None:
        exchange.complete() if len(server.received) == 1 else exchange.reset()

    async def run() -> list[Answer]:
        async with Upstream(route(server.url), None, 1, ByteBudget(2**25)) as upstream:
            return [await upstream.send(BODY, f"batch_req_{number}") for number in range(2)]

    server.behave = die_at_the_second
    assert asyncio.run(run())[1] == Answer(failure="broken")
    assert len(server.received) == 2


def test_cookies_are_not_sent_back(server: Server) -> None:
    async def twice() -> None:
        async with Upstream(route(server.url), None, 4, ByteBudget(2**25)) as upstream:
            await upstream.send(BODY, "batch_req_1")
            await upstream.send(BODY, "batch_req_2")

    server.behave = answer(200, b"{}", Set_Cookie="session=1")
    asyncio.run(twice())
    assert all("cookie" not in received.headers for received in server.received)
    assert "authorization" not in server.received[0].headers


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1, 4 * 1024 * 1024])
def test_a_long_body_arrives_whole(server: Server, size: int) -> None:
    server.behave = answer(200, b"{}")
    body = b"a" * size

    async def run() -> Answer:
        async with Upstream(route(server.url), None, 1, ByteBudget(2**25)) as upstream:
            return await upstream.send(body, "key")

    assert asyncio.run(run()).status == 200
    assert server.received[0].body == body
    assert server.received[0].headers["content-length"] == str(size)
    assert server.received[0].headers["content-type"] == "application/json"
