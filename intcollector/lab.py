"""A pair of virtual interfaces to try things on, made and removed through netlink.

What the lab made carries a mark in its alias; whatever does not is never changed or deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from .errors import AttachError

NAMES = ("veth_0", "veth_1")
MARK = "intcollector lab"
MTU = 3400
"""Bytes: about the most that XDP in native mode allows on a veth (a page, less headroom and bookkeeping)."""

_SIOCETHTOOL, _ETHTOOL_GGRO, _ETHTOOL_SGRO = 0x8946, 0x2B, 0x2C
_IFF_UP = 1


def up(names: Sequence[str] = NAMES) -> None:
    """Make the pair and bring both ends up; again, it only mends what is missing.

    Quiet: without IPv6 on it nothing is sent by itself, so that counts are exact. GRO is on, so that frames can be
    redirected into either end without an XDP program on the other. Errors: AttachError.
    """
    with _netlink() as route:
        existing = [_find(route, name) for name in names]
        if any(link and not _ours(link) for link in existing):
            raise AttachError(
                _foreign([n for n, link in zip(names, existing, strict=True) if link and not _ours(link)])
            )
        if not all(existing):
            for link in existing:  # half a pair, renamed or moved away: begin anew
                if link:
                    _delete(route, link)
            _make(route, names)
        for name in names:
            _settle(route, name)


def down(names: Sequence[str] = NAMES) -> None:
    """Remove the pair, if it is there. Errors: AttachError if an interface of that name is not the lab's."""
    with _netlink() as route:
        for name in names:
            link = _find(route, name)
            if link and not _ours(link):
                raise AttachError(_foreign([name]))
            if link:
                _delete(route, link)


class Lab:
    """The pair as a context manager, each end in a network namespace of its own if one is named.

    Namespaces that are missing are made and go with the lab; so does the pair.
    """

    def __init__(self, names: Sequence[str] = NAMES, namespaces: Sequence[str | None] = (None, None)) -> None:
        self.names, self.namespaces = tuple(names), tuple(namespaces)
        self._made: list[str] = []
        self._up = False

    def __enter__(self) -> Lab:
        from pyroute2 import netns

        try:
            for name in dict.fromkeys(n for n in self.namespaces if n):
                if name not in netns.listnetns():
                    _call(f"make namespace {name}", netns.create, name)
                    self._made.append(name)
                with inside(name), _netlink() as route:
                    _call("bring lo up", route.link, "set", index=1, state="up")
            first, second = self.namespaces
            with open(f"/run/netns/{second}" if second else "/proc/thread-self/ns/net", "rb") as target, inside(first):
                up(self.names)
                self._up = True
                if second != first:
                    self._move(self.names[1], target.fileno())
            with inside(second), _netlink() as route:
                _settle(route, self.names[1])
        except BaseException:
            self.close()
            raise
        return self

    def _move(self, name: str, namespace: int) -> None:
        with _netlink() as route:
            _call(f"move {name}", route.link, "set", index=_find(route, name)["index"], net_ns_fd=namespace)

    @contextlib.contextmanager
    def inside(self, end: int) -> Iterator[str]:
        """What this thread does here, it does in the namespace of that end (0 or 1); the end's name."""
        with inside(self.namespaces[end]):
            yield self.names[end]

    def close(self) -> None:
        """Remove the pair and the namespaces that were made."""
        from pyroute2 import netns

        for namespace in dict.fromkeys(self.namespaces) if self._up else ():
            with inside(namespace):
                down(self.names)
        self._up = False
        for namespace in self._made:
            with contextlib.suppress(FileNotFoundError):
                netns.remove(namespace)
        self._made.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    """What this thread does here, it does in that network namespace (None: in its own)."""
    if namespace is None:
        yield
        return
    from pyroute2 import netns

    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call(f"enter namespace {namespace}", netns.setns, namespace)
        try:
            yield
        finally:
            netns.setns(before)
    finally:
        os.close(before)


# --- Details ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    try:
        from pyroute2 import IPRoute
    except ImportError:
        raise AttachError(
            "pyroute2 is missing: install the distribution's python3-pyroute2, or pip install pyroute2"
        ) from None
    with IPRoute() as route:
        yield route


def _call(what: str, function: Any, *positional: Any, **named: Any) -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return function(*positional, **named)
    except NetlinkError as error:
        number, said = error.code, os.strerror(error.code)
    except OSError as error:
        number, said = error.errno or 0, str(error.strerror)
    if number in (errno.EPERM, errno.EACCES):
        raise AttachError(f"cannot {what}: not permitted, run as root (sudo)") from None
    if number == errno.EOPNOTSUPP:
        raise AttachError(f"cannot {what}: this kernel has no veth, try modprobe veth") from None
    raise AttachError(f"cannot {what}: {said}") from None


def _find(route: Any, name: str) -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        found = list(route.link("get", ifname=name))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise AttachError(f"cannot ask for interface {name}: {os.strerror(error.code)}") from None
    return found[0] if found else None


def _ours(link: Any) -> bool:
    information = link.get_attr("IFLA_LINKINFO")
    kind = information.get_attr("IFLA_INFO_KIND") if information else None
    return bool(kind == "veth" and link.get_attr("IFLA_IFALIAS") == MARK)


def _foreign(names: Sequence[str]) -> str:
    return (
        f"{' and '.join(names)} exists and is not the lab's: choose other names, or remove it yourself (ip link delete)"
    )


def _delete(route: Any, link: Any) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        route.link("delete", index=link["index"])
    except NetlinkError as error:
        if error.code != errno.ENODEV:  # it went with its peer
            raise AttachError(
                f"cannot remove {link.get_attr('IFLA_IFNAME')}: {os.strerror(error.code)}"
                + (", run as root (sudo)" if error.code == errno.EPERM else "")
            ) from None


def _make(route: Any, names: Sequence[str]) -> None:
    """The pair, marked; or nothing."""
    _call(f"make {names[0]}", route.link, "add", ifname=names[0], kind="veth", peer=names[1])
    try:
        for name in names:
            _call(f"mark {name}", route.link, "set", index=_find(route, name)["index"], IFLA_IFALIAS=MARK)
    except BaseException:
        _delete(route, _find(route, names[0]))
        raise


def _settle(route: Any, name: str) -> None:
    """Quieten it, switch GRO on, bring it up."""
    link = _find(route, name)
    if link is None:
        raise AttachError(f"{name} vanished while it was being set up: try again")
    index = link["index"]
    _call(f"set the MTU of {name}", route.link, "set", index=index, mtu=MTU)
    ipv6 = pathlib.Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    if ipv6.exists():
        _call(f"switch IPv6 off on {name}", ipv6.write_text, "1")
    if link["flags"] & _IFF_UP and _gro(name, _ETHTOOL_GGRO):
        return
    # off, up, on: only a switch of an interface that is up tells the kernel that its peer can be redirected into
    _call(f"switch GRO off at {name}", _gro, name, _ETHTOOL_SGRO, 0)
    _call(f"bring {name} up", route.link, "set", index=index, state="up")
    _call(f"switch GRO on at {name}", _gro, name, _ETHTOOL_SGRO, 1)


def _gro(name: str, command: int, on: int = 0) -> bool:
    """ethtool -k or -K NAME gro: it makes a veth receive by NAPI, without which nothing can be redirected into it."""
    value = (ctypes.c_uint32 * 2)(command, on)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(value)))
    return bool(value[1])
