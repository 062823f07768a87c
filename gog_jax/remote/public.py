"""Sockets that connect to the public internet alone.

For addresses that others wrote: no data set may ask this machine for what only
its own network can see, as a cloud's credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import ipaddress
import socket
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Addresses of IPv4 within: 64:ff9b::7f00:1 is 127.0.0.1.
_NAT64 = ipaddress.ip_network('64:ff9b::/96')
# Where clouds keep what is their machines' own, public by their numbers.
_CLOUDS = (
    ipaddress.ip_network('168.63.129.16'),
    ipaddress.ip_network('192.0.0.0/24'),
)


class NotPublic(OSError):
  """A host has an address that is not of the public internet."""


def maker(allowed: Sequence[Network]) -> Any:
  """A `socket_factory` for aiohttp.

  It is called with the very address that is connected to, whether a name, a
  redirect or the number itself led there.

  Args:
    allowed: Networks that may be connected to although they are not public.
  """
  return functools.partial(_socket, allowed)


def _socket(allowed: Sequence[Network], found: Any) -> socket.socket:
  family, kind, protocol, _, (host, *_) = found
  address = ipaddress.ip_address(host)
  inner = _inner(address)
  if not (
      _is_public(inner)
      or any(one in network for network in allowed for one in (address, inner))
  ):
    # Of a host with several addresses the same words for each: errors that
    # differ are joined to one of another kind.
    raise NotPublic(0, 'not on the public internet')
  return socket.socket(family, kind, protocol)


def _inner(address: Any) -> Any:
  """The IPv4 address that one of IPv6 stands for, if it does."""
  if address.version == 4:
    return address
  if address in _NAT64:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
  return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Any) -> bool:
  return (
      address.is_global
      and not address.is_multicast
      and not address.is_reserved
      and not getattr(address, 'is_site_local', False)
      and not any(address in network for network in _CLOUDS)
  )
