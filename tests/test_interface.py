"""interface.py: which interfaces the collector takes, how, and that it lets go of them; on real ones."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from intcollector import interface, kernel, lab, sending
from intcollector.config import Config
from intcollector.errors import AttachError
from intcollector.interface import Attachment
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from . import servers
from .collectors import Collector, foreign_program, intcollector, network, xdp
from .needs import needs_root

pytestmark = needs_root

NATIVE, GENERIC = 1, 2
"""Modes as ip(8) tells them."""
REPORTS = Traffic(packets=100, flows=10)


@pytest.fixture
def pair() -> Iterator[Lab]:
    """Both ends in one namespace, which the test is in."""
    with network(namespaces=1) as made:
        yield made


@contextlib.contextmanager
def collector(*arguments: str) -> Iterator[Collector]:
    with Collector(*arguments) as running:
        yield running


def send(pair: Lab, reports: Traffic = REPORTS) -> int:
    """From the far end; how many."""
    sent = sending.send(reports, pair.names[1], method="packet")
    assert sent.sent == reports.packets
    return sent.sent


def by_netlink(name: str, program: int, flags: int = 0) -> None:
    """Attach as `ip link set dev NAME xdp` does."""
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=name)
        route.link("set", index=index, IFLA_XDP={"attrs": [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", flags)]})


def index_of(name: str) -> int:
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=name)
    return int(index)


def mode(name: str) -> int | None:
    program = xdp(name)
    return program["mode"] if program else None


# --- modes ------------------------------------------------------------------------------------------------------------


def test_native(pair: Lab) -> None:
    """Auto attaches in native mode where the driver can, says so, and leaves nothing on the interface at its end."""
    near = pair.names[0]
    with collector(near) as running:
        assert f"{near}: attached in native mode\n" in running.said()
        assert mode(near) == NATIVE
        running.wait_packets(send(pair), "ok")
        assert running.end() == 0
        assert xdp(near) is None


def test_generic_where_it_is_asked_for(pair: Lab) -> None:
    """--xdp-mode generic attaches in generic mode, says so, and counts."""
    near = pair.names[0]
    with collector(near, "--xdp-mode", "generic") as running:
        assert f"{near}: attached in generic mode\n" in running.said()
        assert mode(near) == GENERIC
        running.wait_packets(send(pair), "ok")


def test_auto_falls_back(pair: Lab) -> None:
    """Auto goes on in generic mode where the driver has no XDP, says why, and counts."""
    with collector("lo") as running:
        said = running.said()
        assert "cannot attach to lo in native mode (EOPNOTSUPP)" in said
        assert "going on in generic mode" in said
        assert "lo: attached in generic mode\n" in said
        assert mode("lo") == GENERIC
        sending.send(REPORTS, "lo", method="packet")
        running.wait(lambda m: m.outcomes().get("ok") == REPORTS.packets, "the reports are counted")


def test_native_is_not_replaced_by_generic(pair: Lab) -> None:
    """--xdp-mode native ends with exit code 1 where the driver has no XDP, saying what to try."""
    ended = intcollector("run", "lo", "--xdp-mode", "native", "--prometheus", "off")
    assert ended.returncode == 1
    assert ended.stderr == (
        "intcollector: cannot attach to lo in native mode (EOPNOTSUPP): the driver has no XDP support, or the MTU is "
        "too large for it; try --xdp-mode generic\n"
    )
    assert xdp("lo") is None


def test_unknown_interface(pair: Lab) -> None:
    """An interface that does not exist is an error that names those that do, and takes off what was attached before."""
    near, far = pair.names
    ended = intcollector("run", near, "nosuch0", "--prometheus", "off")
    assert ended.returncode == 1
    assert ended.stderr == f"intcollector: there is no interface nosuch0: this machine has {near}, {far}, lo\n"
    assert xdp(near) is None


# --- occupied ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["netlink native", "netlink generic", "link native", "link generic"])
def occupied(pair: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """What a program on the near end is called, attached in one of the ways."""
    near = pair.names[0]
    how, mode = request.param.split()
    with foreign_program() as program:
        link = -1
        if how == "netlink":
            by_netlink(near, program, interface.FLAGS[mode])
        else:
            link = kernel.link_create(program, index_of(near), interface.FLAGS[mode])
        try:
            yield f"XDP program somebody_else (id {kernel.program_id(program)}, {mode} mode)"
        finally:
            if link >= 0:
                os.close(link)


def test_occupied_is_refused_unless_forced(pair: Lab, occupied: str) -> None:
    """An interface with another program is refused, naming the program, which stays; --force replaces it."""
    near = pair.names[0]
    before = xdp(near)
    ended = intcollector("run", near, "--prometheus", "off")
    assert ended.returncode == 1
    assert ended.stderr == f"intcollector: {near} already runs {occupied}: detach it, or replace it with --force\n"
    assert before and xdp(near) == before
    with collector(near, "--force") as running:
        assert f"{near}: taking off {occupied}, as --force says" in running.said()
        there = xdp(near)
        assert there and there["mode"] == NATIVE and there["prog"]["id"] != before["prog"]["id"]
        running.wait_packets(send(pair), "ok")
        assert running.end() == 0
    assert xdp(near) is None


def test_two_collectors(pair: Lab) -> None:
    """A second collector is refused; forced, it takes the interface, of which the first is not ready, until it ends."""
    near = pair.names[0]
    with collector(near) as first:
        ended = intcollector("run", near, "--prometheus", "off")
        assert ended.returncode == 1
        assert f"{near} already runs XDP program collector (id " in ended.stderr
        first.wait_packets(send(pair), "ok")
        with collector(near, "--force") as second:
            status, reason = first.wait_until(lambda: said if (said := first.get("/readyz"))[0] != 200 else None, "503")  # type: ignore[misc]
            assert status == 503
            assert reason.startswith(f"not attached: {near} already runs XDP program collector (id ")
            second.wait_packets(send(pair), "ok")
            first.wait_packets(REPORTS.packets, "ok")
            assert second.end() == 0
        first.wait_until(lambda: first.get("/readyz")[0] == 200, "the first has the interface again")
        send(pair)
        first.wait_packets(2 * REPORTS.packets, "ok")


def test_kill_leaves_the_interface_clean(pair: Lab) -> None:
    """After kill -9 no program is on the interface, and it can be taken at once."""
    near = pair.names[0]
    with collector(near) as running:
        assert mode(near) == NATIVE
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        servers.wait(lambda: xdp(near) is None, "the program is gone")
    with collector(near) as running:
        running.wait_packets(send(pair), "ok")


# --- interfaces that come and go --------------------------------------------------------------------------------------


def test_down_and_up(pair: Lab) -> None:
    """An interface that was down and up again is still collected from, by the same program."""
    near = pair.names[0]
    with collector(near) as running, IPRoute() as route:
        before = xdp(near)
        running.wait_packets(send(pair), "ok")
        for state in ("down", "up"):
            route.link("set", index=index_of(near), state=state)
        servers.wait(lambda: int(route.link("get", ifname=near)[0]["flags"]) & 0x40, "the link runs")  # IFF_RUNNING
        assert xdp(near) == before
        send(pair)
        running.wait_packets(2 * REPORTS.packets, "ok")
        assert running.get("/readyz") == (200, "ready\n")


def test_deleted_and_made_again(pair: Lab) -> None:
    """An interface that is deleted makes the collector not ready, which says why; one that comes back is taken up."""
    near = pair.names[0]
    with collector(near) as running:
        assert running.get("/readyz") == (200, "ready\n")
        running.wait_packets(send(pair), "ok")
        for again in (2, 3):
            lab.down(pair.names)
            running.wait_until(lambda: running.get("/readyz")[0] == 503, "it is not ready")
            assert running.get("/readyz") == (503, f"not attached: {near} is gone: waiting for it to come back\n")
            assert running.get("/healthz") == (200, "alive\n")
            lab.up(pair.names)
            running.wait_until(lambda: running.get("/readyz")[0] == 200, "it is ready")
            assert mode(near) == NATIVE
            send(pair)
            running.wait_packets(again * REPORTS.packets, "ok")
        assert running.said().count(f"{near} is gone: waiting for it to come back") == 2
        assert running.said().count(f"{near} is back: attached in native mode") == 2
        lab.down(pair.names)
        assert running.end() == 0


def test_back_with_another_program(pair: Lab) -> None:
    """An interface that comes back with somebody's program is left to it, said once, and taken when it is free."""
    near = pair.names[0]
    with foreign_program() as program, collector(near, "--force") as running:
        route = kernel.link_create
        identity = kernel.program_id(program)
        lab.down(pair.names)
        running.wait_until(lambda: running.get("/readyz")[0] == 503, "it is not ready")
        os.kill(running.process.pid, signal.SIGSTOP)  # so that the other is first
        lab.up(pair.names)
        link = route(program, index_of(near), kernel.XDP_FLAGS_DRV_MODE)
        os.kill(running.process.pid, signal.SIGCONT)
        reason = f"not attached: {near} already runs XDP program somebody_else (id {identity}, native mode)"
        running.wait_until(lambda: reason in running.get("/readyz")[1], "it says who is there")
        there = xdp(near)
        assert there and there["prog"]["id"] == identity
        os.close(link)
        running.wait_until(lambda: running.get("/readyz")[0] == 200, "it is ready")
        running.wait_packets(send(pair), "ok")
        assert running.said().count("somebody_else") == 1


def test_several_interfaces(pair: Lab) -> None:
    """One collector counts what comes in on all its interfaces, each named once, and goes on without one of them."""
    with network(namespaces=1) as other, lab.inside(pair.namespaces[0]):
        # the other pair's ends are moved to where the collector is
        far = other.names[1]
        with lab.inside(other.namespaces[0]), IPRoute() as route:
            namespace = os.open(f"/run/netns/{pair.namespaces[0]}", os.O_RDONLY)
            try:
                for name in other.names:
                    route.link("set", index=route.link_lookup(ifname=name)[0], net_ns_fd=namespace)
            finally:
                os.close(namespace)
        try:
            lab.up(other.names)
            names = pair.names[0], other.names[0]
            with collector(*names, names[0]) as running:
                assert [mode(name) for name in names] == [NATIVE, NATIVE]
                assert running.said().count(": attached in native mode\n") == 2
                send(pair)
                sending.send(REPORTS, far, method="packet")
                running.wait_packets(2 * REPORTS.packets, "ok")
                lab.down(other.names)
                running.wait_until(lambda: running.get("/readyz")[0] == 503, "it is not ready")
                send(pair)
                running.wait_packets(3 * REPORTS.packets, "ok")
                assert running.end() == 0
        finally:
            lab.down(other.names)


# --- kernels without links --------------------------------------------------------------------------------------------


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.9: it does not know the command."""
    known = kernel.bpf

    def bpf(command: int, attributes: bytes | bytearray) -> int:
        if command == kernel.LINK_CREATE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return known(command, attributes)

    monkeypatch.setattr(kernel, "bpf", bpf)


def test_netlink_where_there_are_no_links(pair: Lab, no_links: None, caplog: pytest.LogCaptureFixture) -> None:
    """Without BPF links the program is attached by netlink, which says what that means, and detached at close."""
    near = pair.names[0]
    with foreign_program("ours") as program:
        attachment = Attachment(program, near, Config())
        there = xdp(near)
        assert there and (there["mode"], there["prog"]["id"]) == (NATIVE, kernel.program_id(program))
        assert (attachment.mode, attachment.attached) == ("native", True)
        assert "a killed collector leaves its program behind" in caplog.text
        assert all(which != kernel.program_id(program) for _, which, _ in kernel.links())
        attachment.check()
        assert attachment.attached
        attachment.close()
        assert xdp(near) is None
        attachment.close()


def test_netlink_modes(pair: Lab, no_links: None) -> None:
    """By netlink, too, auto falls back to generic mode, an occupied interface is refused, and force replaces."""
    with foreign_program() as theirs, foreign_program("ours") as ours:
        attachment = Attachment(ours, "lo", Config())
        assert (attachment.mode, mode("lo")) == ("generic", GENERIC)
        attachment.close()
        assert xdp("lo") is None

        near = pair.names[0]
        by_netlink(near, theirs)
        with pytest.raises(AttachError, match="already runs XDP program somebody_else"):
            Attachment(ours, near, Config())
        attachment = Attachment(ours, near, Config(force=True))
        there = xdp(near)
        assert there and there["prog"]["id"] == kernel.program_id(ours)
        attachment.close()
        assert xdp(near) is None


def test_netlink_comes_back(pair: Lab, no_links: None, caplog: pytest.LogCaptureFixture) -> None:
    """By netlink, too, an interface that is gone is known to be, which is said once, and taken up when it is back."""
    near = pair.names[0]
    with foreign_program("ours") as program:
        attachment = Attachment(program, near, Config())
        lab.down(pair.names)
        for _ in range(3):
            attachment.check()
            assert not attachment.attached
        assert caplog.text.count("is gone: waiting for it to come back") == 1
        lab.up(pair.names)
        attachment.check()
        assert attachment.attached
        assert mode(near) == NATIVE
        attachment.close()
        assert xdp(near) is None


def test_netlink_leaves_others_alone(pair: Lab, no_links: None) -> None:
    """By netlink, too, a program that took our place is noticed, and not taken off at close."""
    near = pair.names[0]
    with foreign_program() as theirs, foreign_program("ours") as ours:
        attachment = Attachment(ours, near, Config(force=True))
        by_netlink(near, theirs)
        attachment.check()
        assert not attachment.attached
        assert attachment.problem and "somebody_else" in attachment.problem
        attachment.close()
        there = xdp(near)
        assert there and there["prog"]["id"] == kernel.program_id(theirs)


def test_links_are_known_here() -> None:
    """This kernel knows BPF links for XDP, so that an EINVAL of it is not taken for an old kernel's."""
    assert interface._knows_links()


def test_force_gives_back_what_it_cannot_replace() -> None:
    """If ours does not attach, the program that --force took off is on the interface again."""
    with network(), foreign_program() as program:
        by_netlink("lo", program, interface.FLAGS["generic"])
        before = xdp("lo")
        ended = intcollector("run", "lo", "--force", "--xdp-mode", "native", "--prometheus", "off")
        assert ended.returncode == 1
        assert "cannot attach to lo in native mode" in ended.stderr
        assert before is not None and xdp("lo") == before
