"""Addresses that stations tell: in whatever form they are written, none leads where no service is."""

from __future__ import annotations

import pytest

from beamkeeper.domain.addresses import check_service_url
from beamkeeper.domain.errors import InvalidError


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:22237",
        "https://station.example.org",
        "https://[fd00::8]:22237/",
        "http://10.1.2.3:22237",
        "http://8id-server:22237",
    ],
)
def test_hosts_of_a_site_are_called(url: str) -> None:
    check_service_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1%25eth0]",
        "[::]",
        "0.0.0.0",  # noqa: S104 - it is refused
        "[::ffff:0.0.0.0]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
    ],
)
def test_what_is_no_host_of_a_site_is_called_by_nobody(host: str) -> None:
    with pytest.raises(InvalidError, match="called by nobody"):
        check_service_url(f"http://{host}:80")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://10.1.2.3",
        "http://",
        "http://me:secret@10.1.2.3",
        "http://10.1.2.3@evil.example",
        "http://10.1.2.3/a",
        "http://10.1.2.3?a",
        "http://10.1.2.3#a",
        "http://10.1.2.3:0",
        "http://10.1.2.3:99999",
        "http://[::1",
        "http://10.1.2.3\n",
        "//10.1.2.3",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_address_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="no address"):
        check_service_url(url)
