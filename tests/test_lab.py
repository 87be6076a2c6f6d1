"""lab.py, replay.py and sending.py: interfaces made, used and removed."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from intcollector import capture, lab, replay, sending, traffic
from intcollector.errors import AttachError, CaptureError, UsageError
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from . import servers
from .needs import needs_root

pytestmark = needs_root

OURS = f"il{os.getpid()}-"
"""What all names begin with, here and nowhere else: other processes make interfaces and namespaces at the same time."""
NAMES = (f"{OURS}a", f"{OURS}b")
NAMESPACES = (f"{OURS}near", f"{OURS}far")
FLOWS = Traffic(flows=50, hops=3, packets=5000, rate=1e6)
MIX = dataclasses.replace(
    FLOWS, sources=7, event_rate=0.3, path_changes=0.1, drop_reports=0.1, congestion_reports=0.2, loss=0.1,
    duplicates=0.1, reordered=0.1, tcp=0.4, ipv6=0.3, vlan=0.4, ipv6_sources=0.4, payload=(0, 40, 900), seed=7,
    first_sequence_number=2**32 - 300,
)  # fmt: skip
LONG = dataclasses.replace(MIX, hops=28)


def interfaces() -> set[str]:
    """Those of this namespace that were made here."""
    return {name for name in os.listdir("/sys/class/net") if name.startswith(OURS)}


def namespaces() -> set[str]:
    """The named ones that were made here."""
    return {path.name for path in pathlib.Path("/run/netns").glob(f"{OURS}*")}


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Come back when it is true; fail if it never is."""
    servers.wait(true, "what was waited for", seconds)


def received(name: str) -> int:
    """Packets that came out of an interface of this thread's namespace."""
    for line in pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines():
        if line.strip().startswith(f"{name}:"):
            return int(line.split(":")[1].split()[1])
    raise AssertionError(f"{name} is not there")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Interfaces and namespaces are afterwards what they were."""
    before = interfaces(), namespaces()
    yield
    lab.down(NAMES)
    assert (interfaces(), namespaces()) == before


@pytest.fixture
def pair(nothing_left: None) -> Iterator[Lab]:
    """Two ends in two namespaces of their own."""
    with Lab(NAMES, NAMESPACES) as made:
        yield made


def test_up_and_down_twice(nothing_left: None) -> None:
    """The second time nothing changes: the pair is there, up and quiet, or gone."""
    lab.up(NAMES)
    indexes = [pathlib.Path(f"/sys/class/net/{name}/ifindex").read_text() for name in NAMES]
    lab.up(NAMES)
    assert indexes == [pathlib.Path(f"/sys/class/net/{name}/ifindex").read_text() for name in NAMES]
    for name in NAMES:
        wait_for(lambda name=name: pathlib.Path(f"/sys/class/net/{name}/operstate").read_text() == "up\n")  # type: ignore[misc]
        assert pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text() == "1\n"
    lab.down(NAMES)
    lab.down(NAMES)
    assert not interfaces() & set(NAMES)


def test_up_mends(nothing_left: None) -> None:
    """An end that was set down is up again after the next up."""
    lab.up(NAMES)
    subprocess.run(["ip", "link", "set", NAMES[0], "down"], check=True, timeout=20)
    lab.up(NAMES)
    assert sending.send(FLOWS, NAMES[0], count=10).sent == 10


def test_what_is_not_the_labs_stays(nothing_left: None) -> None:
    """A veth that somebody else made is neither taken nor removed."""
    subprocess.run(
        ["ip", "link", "add", NAMES[0], "type", "veth", "peer", "name", NAMES[1] + "x"], check=True, timeout=20
    )
    try:
        for call in (lab.up, lab.down):
            with pytest.raises(AttachError, match="not the lab's"):
                call(NAMES)
            assert NAMES[0] in interfaces() and NAMES[1] not in interfaces()
        with pytest.raises(AttachError, match="not the lab's"), Lab(NAMES):
            pass
    finally:
        subprocess.run(["ip", "link", "delete", NAMES[0]], check=True, timeout=20)


def test_namespaces(nothing_left: None) -> None:
    """A lab makes the namespaces it is to use, is in them and nowhere else, and takes all of it away."""
    before = namespaces()
    with Lab(NAMES, NAMESPACES) as pair:
        assert namespaces() == before | set(NAMESPACES)
        assert not interfaces() & set(NAMES)
        for end in (0, 1):
            with pair.inside(end) as name:
                assert received(name) == 0
        assert not interfaces() & set(NAMES)
    assert namespaces() == before


def test_one_end_in_a_namespace(nothing_left: None) -> None:
    """One end can stay where the lab is made."""
    with Lab(NAMES, (None, NAMESPACES[1])) as pair:
        assert interfaces() & set(NAMES) == {NAMES[0]}
        assert sending.send(FLOWS, NAMES[0], count=100).sent == 100
        with pair.inside(1) as name:
            wait_for(lambda: received(name) == 100)


@pytest.mark.parametrize("method", ["live", "packet"])
@pytest.mark.parametrize("what", [FLOWS, MIX, LONG], ids=["plain", "mix", "long"])
def test_all_that_is_sent_arrives_as_it_is_written(pair: Lab, method: str, what: Traffic) -> None:
    """Both ways of sending put exactly the frames on the wire that a file would hold, in order."""
    with pair.inside(1) as name, sniffer(name) as caught:
        with pair.inside(0) as near:
            sent = sending.send(what, near, method=method)
        assert (sent.sent, sent.dropped, sent.method) == (what.packets, 0, method)
        wait_for(lambda: len(caught) == what.packets)
    assert caught == list(traffic.frames(what))


@pytest.mark.parametrize("profile", ["l2port4", "geant", "onos", "intcollector"])
@pytest.mark.parametrize("instructions", [0xFF00, 0x8100, 0xDC01, 0x9000, 0x2000])
def test_live_frames_of_every_layout(pair: Lab, profile: str, instructions: int) -> None:
    """The kernel's frames are those of a file whatever the profile and the instructions."""
    what = dataclasses.replace(
        FLOWS, packets=300, profile=profile, instructions=instructions, hops=5,
        event_rate=0.5 if Traffic(event_rate=0, instructions=instructions).event_kinds else 0,
    )  # fmt: skip
    with pair.inside(1) as name, sniffer(name) as caught:
        with pair.inside(0) as near:
            assert sending.send(what, near, method="live").sent == 300
        wait_for(lambda: len(caught) == 300)
    assert caught == list(traffic.frames(what))


class sniffer:
    """All frames that come out of an interface, in a list that a thread fills. A context manager."""

    def __init__(self, name: str) -> None:
        import socket

        self.frames: list[bytes] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((name, 3))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
        self._socket.settimeout(0.05)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="sniffer")

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                self.frames.append(self._socket.recv(65536))
            except TimeoutError:
                continue

    def __enter__(self) -> list[bytes]:
        self._thread.start()
        return self.frames

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


def test_an_unpaced_million_arrives(pair: Lab) -> None:
    """A million frames sent as fast as possible are a million frames received."""
    with pair.inside(0) as near:
        sent = sending.send(FLOWS, near, count=1_000_000)
    assert (sent.sent, sent.dropped) == (1_000_000, 0)
    with pair.inside(1) as name:
        wait_for(lambda: received(name) == 1_000_000)


@pytest.mark.parametrize("method", ["live", "packet"])
def test_rate(pair: Lab, method: str) -> None:
    """A paced sender is never ahead of its pace, and ends when its time is up."""
    with pair.inside(0) as near:
        sent = sending.send(FLOWS, near, rate=10_000, seconds=0.3, method=method)
    assert 0 < sent.sent <= 10_000 * sent.seconds + 1
    assert sent.seconds >= 0.3
    with pair.inside(1) as name:
        wait_for(lambda: received(name) == sent.sent)


def test_sent_is_what_was_taken(pair: Lab) -> None:
    """Frames that the interface refuses are counted as dropped, not as sent."""
    with pair.inside(0) as near:
        sender = sending.LiveSender(FLOWS, near)
        try:
            sender.run(100)
            with pair.inside(1) as far:
                subprocess.run(["ip", "link", "set", far, "down"], check=True, timeout=20)
            sender.run(50)
            state = sender.state()
        finally:
            sender.close()
    assert (int(state["index"]), int(state["sent"])) == (150, 100)


def test_interrupted(pair: Lab) -> None:
    """Ctrl-C ends sending, and what was sent until then is told."""

    def interrupt() -> None:
        with pair.inside(1) as far:
            wait_for(lambda: received(far) > 0)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pair.inside(0) as near:
        sent = sending.send(FLOWS, near, rate=1000, seconds=20)
    helper.join()
    assert sent.interrupted and sent.seconds < 20


def test_without_live_frames_it_is_sent_otherwise(pair: Lab) -> None:
    """Where the interface takes no redirected frames they go by a packet socket, and it is said why."""
    with pair.inside(1) as far:
        subprocess.run(["ip", "link", "set", far, "down"], check=True, timeout=20)
        lab._gro(far, lab._ETHTOOL_SGRO, 0)
        subprocess.run(["ip", "link", "set", far, "up"], check=True, timeout=20)
    with pair.inside(0) as near:
        sent = sending.send(FLOWS, near, count=100)
    assert (sent.sent, sent.method) == (100, "packet")
    assert "GRO" in sent.why
    with pair.inside(1) as far:
        wait_for(lambda: received(far) == 100)


def test_replay(pair: Lab, tmp_path: pathlib.Path) -> None:
    """A file's packets are sent in order, as often as asked for."""
    path = tmp_path / "some.pcap"
    traffic.write(dataclasses.replace(FLOWS, packets=6000), str(path))
    expected = [frame for frame, _ in capture.read(str(path))]
    with pair.inside(1) as far, sniffer(far) as caught:
        with pair.inside(0) as near:
            sent = replay.replay(str(path), near, loop=2)
        assert (sent.sent, sent.dropped) == (12_000, 0)
        wait_for(lambda: len(caught) == 12_000)
    assert caught == expected * 2


def test_replay_of_odd_files(pair: Lab, tmp_path: pathlib.Path) -> None:
    """Frames too short for Ethernet are left out and counted; a damaged file is refused after what is whole."""
    path = tmp_path / "some.pcap"
    capture.write(str(path), [(b"short", 0), (bytes(60), 0)])
    with pair.inside(0) as near:
        sent = replay.replay(str(path), near)
        assert (sent.sent, sent.dropped) == (1, 1)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CaptureError, match="cut short"):
            replay.replay(str(path), near)
        with pytest.raises(UsageError, match="loop"):
            replay.replay(str(path), near, loop=0)
        with pytest.raises(UsageError, match="rate"):
            replay.replay(str(path), near, rate=0)


def test_interfaces_that_cannot_be_used(pair: Lab, tmp_path: pathlib.Path) -> None:
    """A missing interface, one that is down and one that is too narrow are named, with what to try."""
    path = tmp_path / "some.pcap"
    capture.write(str(path), [(bytes(60), 0)])
    ways: list[Callable[[str], sending.Sent]] = [
        lambda name: replay.replay(str(path), name),
        lambda name: sending.send(FLOWS, name),
    ]
    with pair.inside(0) as near:
        for send in ways:
            with pytest.raises(AttachError, match="there is no interface nowhere0"):
                send("nowhere0")
        subprocess.run(["ip", "link", "set", near, "mtu", "200"], check=True, timeout=20)
        with pytest.raises(AttachError, match="MTU is 200"):
            sending.send(FLOWS, near)
        subprocess.run(["ip", "link", "set", near, "down"], check=True, timeout=20)
        for send in ways:
            with pytest.raises(AttachError, match="is down, try ip link set"):
                send(near)


def test_not_permitted(tmp_path: pathlib.Path) -> None:
    """Without root, both the lab and sending say so in a sentence."""
    script = (
        "import os\n"
        "import pyroute2\n"
        "from intcollector import lab, sending\n"
        "from intcollector.errors import AttachError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"  # after the imports: the checkout may be root's alone
        f"for call in (lambda: lab.up({NAMES!r}), lambda: sending.PacketSocket('lo')):\n"
        "    try: call()\n"
        "    except AttachError as error: print(error)\n"
    )
    root = pathlib.Path(lab.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("not permitted, run as root (sudo)") == 2, done.stderr


def test_packet_socket_takes_arrays(pair: Lab) -> None:
    """Frames are picked out of one array by start and length, any number of them."""
    data = np.arange(256 * 20, dtype=np.uint8).reshape(20, 256)
    start, length = np.arange(3000) % 20 * 256 + 5, 20 + np.arange(3000) % 100
    with pair.inside(1) as far, sniffer(far) as caught:
        with pair.inside(0) as near, sending.PacketSocket(near) as raw:
            assert raw.send(data, start, length) == 3000
        wait_for(lambda: len(caught) == 3000)
    flat = data.tobytes()
    assert caught == [flat[a : a + n] for a, n in zip(start.tolist(), length.tolist(), strict=True)]


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is missing")
def test_the_structs_of_sendmmsg_are_the_c_librarys(tmp_path: pathlib.Path) -> None:
    """struct mmsghdr is laid out as the C compiler does it: otherwise one call sends one packet, not a thousand."""
    source = tmp_path / "sizes.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdio.h>\n#include <sys/socket.h>\n#include <sys/uio.h>\n"
        'int main(void) { printf("%zu %zu %zu %zu", sizeof(struct mmsghdr), offsetof(struct mmsghdr, msg_len),\n'
        "offsetof(struct msghdr, msg_iov), sizeof(struct iovec)); }\n"
    )
    subprocess.run(["gcc", "-o", str(tmp_path / "sizes"), str(source)], check=True, timeout=60)
    said = subprocess.run([str(tmp_path / "sizes")], capture_output=True, text=True, check=True, timeout=20).stdout
    message, header, vector = sending._Message, sending._Header, sending._Vector
    sizes = ctypes.sizeof(message), message.sent.offset, header.vectors.offset, ctypes.sizeof(vector)
    assert said == "{} {} {} {}".format(*sizes)
