"""Interfaces: what is on them, attaching the program, and taking it up again when one went away and came back.

By a BPF link (Linux 5.9): it lives as long as its descriptor, so that even a killed collector leaves the interface
clean. Older kernels are attached by netlink, which a kill leaves behind. The links and netlink are pyroute2's.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from . import kernel
from .config import Config
from .errors import AttachError

log = logging.getLogger(__name__)

FLAGS = {"native": kernel.XDP_FLAGS_DRV_MODE, "generic": kernel.XDP_FLAGS_SKB_MODE}
_MODES = {"xdp": "native", "xdpgeneric": "generic", "xdpoffload": "offloaded", "xdpmulti": "more than one"}
"""enum xdp_attached, in pyroute2's words."""
_LINK_IFINDEX_AT = 16  # struct bpf_link_info, xdp
_IF_NOEXIST = 1  # XDP_FLAGS_UPDATE_IF_NOEXIST: only where no program is
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


@dataclasses.dataclass(frozen=True)
class Occupant:
    """An XDP program on an interface. link: the id of its BPF link; None if it was attached by netlink."""

    program: int
    name: str
    mode: str
    link: int | None

    def __str__(self) -> str:
        return f"XDP program {self.name or '(without a name)'} (id {self.program}, {self.mode} mode)"


def find(route: IPRoute, name: str) -> Any:
    """The kernel's description of an interface, or None."""
    try:
        return route.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code in (errno.ENODEV, errno.ERANGE, errno.EINVAL):  # the last two: no interface can have such a name
            return None
        raise


def missing(route: IPRoute, name: str) -> AttachError:
    """What to say of an interface that is not there."""
    have = ", ".join(sorted(one.get_attr("IFLA_IFNAME") for one in route.get_links()))
    return AttachError(f"there is no interface {name}: this machine has {have}")


def must_exist(names: Iterable[str]) -> None:
    """Errors: AttachError, for the first one that is not there."""
    with IPRoute() as route:
        for name in names:
            if find(route, name) is None:
                raise missing(route, name)


def occupant(link: Any) -> Occupant | None:
    """The program that an interface runs."""
    xdp = link.get_attr("IFLA_XDP")
    mode = xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else None
    if not mode:
        return None
    identity = next((i for a in ("PROG_ID", "DRV_PROG_ID", "SKB_PROG_ID") if (i := xdp.get_attr(f"IFLA_XDP_{a}"))), 0)
    try:
        name = kernel.program_name(identity)
    except OSError:
        name = ""
    links = {program: identity for identity, program, index in kernel.links() if index == link["index"]}
    return Occupant(identity, name, _MODES.get(str(mode), "unknown"), links.get(identity))


class Traffic(NamedTuple):
    """Of an interface. carrier: there is another end, and it is up. frames: received. dropped: given up before any
    program saw them. None: not known."""

    up: bool | None
    carrier: bool | None
    frames: int
    dropped: int


def _received(link: Any) -> tuple[int, int]:
    """(frames, dropped) by the kernel's description of an interface."""
    said = link.get_attr("IFLA_STATS64")
    return (said["rx_packets"], said["rx_dropped"] + said["rx_missed_errors"]) if said else (0, 0)


class Attachment:
    """The program on one interface.

    mode: native or generic, as it came out. problem: why it is not attached, or None. Errors: AttachError.
    """

    def __init__(self, program: int, name: str, config: Config) -> None:
        self.name = name
        self.mode = ""
        self.problem: str | None = None
        self._program = program
        self._config = config
        self._link: int | None = None
        self._by_netlink = False
        self._index = 0
        self._at_attach = self._last = self._of_before = (0, 0)
        with IPRoute() as route:
            link = find(route, name)
            if link is None:
                raise missing(route, name)
            self._attach(route, link, force=config.force)

    @property
    def attached(self) -> bool:
        return self.problem is None

    def _attach(self, route: IPRoute, link: Any, *, force: bool) -> None:
        there = occupant(link)
        if there is None:
            self._attach_one(route, link)
            return
        if not force:
            raise AttachError(f"{self.name} already runs {there}: detach it, or replace it with --force")
        evicted = kernel.program_fd(there.program)
        try:
            self._evict(route, link, there)
            try:
                self._attach_one(route, link)
            except AttachError:
                _set_program(route, link["index"], evicted, FLAGS.get(there.mode, 0))  # back to where it was
                raise
        finally:
            os.close(evicted)

    def _attach_one(self, route: IPRoute, link: Any) -> None:
        """In the first mode of those that are wanted which works."""
        wanted = ["native", "generic"] if self._config.xdp_mode == "auto" else [self._config.xdp_mode]
        for mode in wanted:
            try:
                self._attach_as(route, link, mode)
            except (OSError, NetlinkError) as error:
                number = error.errno if isinstance(error, OSError) else error.code
                why = f"cannot attach to {self.name} in {mode} mode ({_code(number)})"
                if number == errno.EBUSY:
                    raise AttachError(f"{why}: it runs another XDP program") from None
                if number in (errno.EPERM, errno.EACCES):
                    raise AttachError(f"{why}: not permitted; run as root (sudo)") from None
                if mode == "native" and len(wanted) > 1:
                    log.warning("%s: the driver does not take it, going on in generic mode, which is slower", why)
                    continue
                hint = "the driver has no XDP support, or the MTU is too large for it"
                raise AttachError(f"{why}: {hint}; try --xdp-mode generic" if mode == "native" else why) from None
            self.mode = mode
            self.problem = None
            self._index = link["index"]
            self._of_before = self._frames()
            self._at_attach = self._last = _received(link)
            return

    def _attach_as(self, route: IPRoute, link: Any, mode: str) -> None:
        if not self._by_netlink:
            try:
                self._link = kernel.link_create(self._program, link["index"], FLAGS[mode])
                return
            except OSError as error:
                if error.errno != errno.EINVAL or _knows_links():
                    raise
            log.warning(
                "this kernel has no BPF links for XDP (Linux 5.9): a killed collector leaves its program behind"
            )
        _set_program(route, link["index"], self._program, FLAGS[mode] | _IF_NOEXIST)
        self._by_netlink = True

    def _evict(self, route: IPRoute, link: Any, there: Occupant) -> None:
        log.warning("%s: taking off %s, as --force says", self.name, there)
        if there.link is None:
            _set_program(route, link["index"], -1, FLAGS.get(there.mode, 0))
            return
        descriptor = kernel.link_fd(there.link)
        try:
            kernel.link_detach(descriptor)
        finally:
            os.close(descriptor)

    def traffic(self) -> Traffic:
        """What came in since the program was attached first."""
        try:
            with IPRoute() as route:
                link = find(route, self.name)
        except (NetlinkError, OSError) as error:
            log.debug("%s: the kernel does not say what came in (%s)", self.name, error)
            return Traffic(None, None, *self._frames())
        if link is not None and link["index"] == self._index:
            self._last = _received(link)
        flags = link["flags"] if link is not None else 0
        return Traffic(bool(flags & _IFF_UP), bool(flags & _IFF_RUNNING), *self._frames())

    def _frames(self) -> tuple[int, int]:
        """(frames, dropped) since then: an interface that is deleted and comes back counts anew."""
        frames, dropped = (
            before + max(0, last - first)
            for before, last, first in zip(self._of_before, self._last, self._at_attach, strict=True)
        )
        return frames, dropped

    def check(self) -> None:
        """Take the interface up again: if it was deleted and came back, or another program took our place and is gone.
        Going down and up needs nothing: the program stays. Logs what changes; what cannot be attached is tried again
        at the next check."""
        if self._link is not None and self._link_index():
            return
        with IPRoute() as route:
            link = find(route, self.name)
            if self.problem is None and self._by_netlink and self._is_ours(link):
                return
            if self._link is not None:
                os.close(self._link)
                self._link = None
            if link is None:
                self._trouble(f"{self.name} is gone: waiting for it to come back")
                return
            try:
                self._attach(route, link, force=False)
            except (AttachError, NetlinkError, OSError) as error:
                self._trouble(str(error))
                return
        log.warning("%s is back: attached in %s mode", self.name, self.mode)

    def _trouble(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("not attached: %s", problem)
        self.problem = problem

    def _is_ours(self, link: Any) -> bool:
        """Does the interface run our program, attached by netlink? link: None for one that is gone."""
        if link is None or link["index"] != self._index:
            return False
        there = occupant(link)
        return there is not None and there.link is None and there.program == kernel.program_id(self._program)

    def _link_index(self) -> int:
        """The interface our link is on; 0 once that is gone, or our program was taken off."""
        assert self._link is not None
        return int(struct.unpack_from("=I", kernel.info(self._link, 64), _LINK_IFINDEX_AT)[0])

    def close(self) -> None:
        """Take the program off."""
        if self._link is not None:
            os.close(self._link)
            self._link = None
        elif self._by_netlink:
            with IPRoute() as route:
                if self._is_ours(find(route, self.name)):
                    _set_program(route, self._index, -1, FLAGS[self.mode])
            self._by_netlink = False


def _code(number: int | None) -> str:
    """The name of an errno. Linux has two for one number; the kernel's own is the second."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number or 0, str(number))


def _knows_links() -> bool:
    """Does this kernel know BPF links for XDP? Asked with a descriptor that cannot be a program."""
    try:
        kernel.link_create(0xFFFFFFFF, 1, 0)
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def _set_program(route: IPRoute, index: int, program: int, flags: int) -> None:
    route.link("set", index=index, IFLA_XDP={"attrs": [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", flags)]})
