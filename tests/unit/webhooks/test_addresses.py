"""Where a webhook may go: to the public internet over HTTPS, and nowhere else."""

import pytest
from nightshift.core.errors import BadRequestError
from nightshift.webhooks.addresses import check_url, is_loopback, is_public

HOSTILE = [
    "",
    "hooks.example.com",
    "//hooks.example.com/x",
    "/relative",
    "http://hooks.example.com/x",
    "HTTP://hooks.example.com/x",
    "ftp://hooks.example.com/x",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "javascript:alert(1)",
    "https:hooks.example.com",
    "https://",
    "https:///path",
    "https://?query",
    "https://:443/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://api.localhost/",
    "https://printer.local/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://metadata.google.internal./",
    "https://ip-10-0-0-1.ec2.internal/",
    "https://1.0.0.127.in-addr.arpa/",
    "https://intranet/",
    "https://instance-data/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.0.0.0x1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1:8443/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials/",
    "https://2852039166/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[::1",
    "https://user@hooks.example.com/",
    "https://user:secret@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:80/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:https/",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/\r\nX-Header: 1",
    "https://hooks.example.com/\x00",
    " https://hooks.example.com/",
    "https://hooks.example.com/\t",
    "https://hооks.example.com/",  # noqa: RUF001 Cyrillic
    "https://ｌｏｃａｌｈｏｓｔ/",  # noqa: RUF001 full width
    "https://127。0。0。1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://a.b%2elocalhost/",
    "https://127.0.0.1%2f.example.com/",
    "https://./",
    "https://../",
    "https://.com/",
    "https://hooks..example.com/",
]
PUBLIC = [
    "https://hooks.example.com/x?y=z",
    "HTTPS://Hooks.Example.COM",
    "https://hooks.example.com.:443/",
    "https://hooks.example.com:8443/x",
    "https://a.b-c.example.co.uk/~path/%20;x#fragment",
    "https://xn--bcher-kva.example/",
    "https://1.1.1.1/",
    "https://[2606:4700:4700::1111]/",
    "https://local.example.com/",
    "https://10.example.com/",
    "https://hooks.example.com:/x",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_url(url)
    assert (caught.value.code, caught.value.param) == ("invalid_callback_url", "callback_url")


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_url_is_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("url", HOSTILE)
def test_a_local_stack_refuses_hostile_urls(url: str) -> None:
    with pytest.raises(BadRequestError):
        check_url(url, allow_local=True)


@pytest.mark.parametrize(
    "url", ["http://localhost:9/x", "http://127.0.0.1:8080", "http://127.9.9.9/", "http://[::1]:80/"]
)
def test_only_local_stacks_allow_loopback(url: str) -> None:
    check_url(url, allow_local=True)
    with pytest.raises(BadRequestError):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://0.0.0.0/",
        "http://127.1/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://localhost\\@hooks.example.com/",
        "http://127.0.0.1:99999/",
        "ftp://localhost/",
        "http://a@localhost/",
    ],
)
def test_allow_local_allows_loopback_alone(url: str) -> None:
    with pytest.raises(BadRequestError):
        check_url(url, allow_local=True)


def test_the_message_names_the_parameter() -> None:
    with pytest.raises(BadRequestError, match=r"^url must start with https://\.$"):
        check_url("http://hooks.example.com", param="url")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.254",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::10.0.0.1",
        "2002:a00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:a00:1:0:0:5601:5601",
        "::10.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "2001:db8::1",
        "3fff::1",
        "",
        "localhost",
        "1.1.1",
        "1.1.1.1.",
        "0x7f.0.0.1",
        "1.1.1.1/24",
    ],
)
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "52.95.110.1",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ],
)
def test_an_address_outside_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", False),
        ("10.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_recognized(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
