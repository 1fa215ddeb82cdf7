"""Addresses of services that are told by others, such as a station of its own: which may be called at all."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from beamkeeper.domain.errors import InvalidError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")


def check_service_url(url: str) -> None:
    """Refuse what is no address of a service: portals and clients call it, with the token of who looks.

    Hosts of the site and this one itself are called all the time. Never a link's own addresses, where clouds have what
    a host may know of itself (169.254.169.254), in whatever form they are written, nor groups and nobody.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refusal(url) from error
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment) and parts.path in ("", "/")
    if parts.scheme not in ("http", "https") or not host or port == 0 or not is_plain or not url.isprintable():
        raise _refusal(url)
    if is_never_called(host):
        raise InvalidError(f'"{url}" is called by nobody: its host is a link\'s own address, or a group of hosts')


def is_never_called(host: str) -> bool:
    """Whether a host is written as an address that no service has."""
    address = _address(host.partition("%")[0])
    if address is None:
        return False
    return address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is written as, in any form that a system reads; None where it is a name."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:  # 0xa9fea9fe, 169.16689638 and 0251.0376.0251.0376 are addresses too
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if found in _NAT64:
        return ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    if found in _6TO4:
        return ipaddress.IPv4Address(int(found) >> 80 & 0xFFFF_FFFF)
    return found.ipv4_mapped or found


def _refusal(url: str) -> InvalidError:
    return InvalidError(f'"{url}" is no address of a service: use http://HOST:PORT')
