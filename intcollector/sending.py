"""Frames onto an interface: by live frames through bpf/generate.c (Linux 5.18), or by a packet socket.

Sending always ends: after so many frames, so many seconds, or at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import numpy as np

from . import kernel, traffic
from .errors import AttachError, IntCollectorError, LoadError, UsageError
from .loader import Program
from .traffic import Model, Traffic

_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP = 1
_RAW_TRACEPOINT_OPEN = 17
_CLONE_NEWNET = 0x40000000
_BATCH = 1024
"""Frames of one sendmmsg, at most."""
_CHUNK = 1 << 16
"""Frames of one test run, at most: some ten milliseconds, so that a signal is heard."""
_STUCK_S = 2.0

Tell = Callable[[int], object]
"""Is called now and then with how many were offered so far; what it takes, it takes from the sending."""


def silently(done: int) -> None:
    """Told, and nobody listens."""


@dataclasses.dataclass
class Sent:
    """sent: frames the kernel took for transmission. dropped: those it refused. method: "live" or "packet"; then why
    not the other."""

    sent: int = 0
    seconds: float = 0.0
    dropped: int = 0
    method: str = ""
    interrupted: bool = False
    why: str = ""

    @property
    def offered(self) -> int:
        """Frames tried: what traffic.truth is to be asked for if dropped is 0."""
        return self.sent + self.dropped

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.sent / self.seconds if self.seconds else 0.0


class Pace:
    """How many frames may go now: for a rate (a second; None: as fast as possible), a count and a time in seconds."""

    def __init__(self, rate: float | None, count: int | None, seconds: float | None, largest: int) -> None:
        if count is None and seconds is None:
            raise UsageError("how much to send is not said: give a number of packets or of seconds")
        if rate is not None and rate <= 0:
            raise UsageError(f"a rate of {rate} packets a second sends nothing: give more than 0, or none for no limit")
        self._rate, self._count, self._largest = rate, count, largest
        self.began = time.monotonic()
        self._end = None if seconds is None else self.began + seconds

    def due(self, done: int) -> int:
        """Waits until at least one more frame is due; 0: it is over."""
        while True:
            now = time.monotonic()
            if (self._end is not None and now >= self._end) or (self._count is not None and done >= self._count):
                return 0
            some = self._largest if self._count is None else min(self._largest, self._count - done)
            if self._rate is None:
                return some
            late = int((now - self.began) * self._rate) + 1 - done
            if late > 0:
                return min(some, late)
            # a millisecond's worth, or the next one: waking more often costs more than it smooths
            wait = max(0.001, self.began + done / self._rate - now)
            time.sleep(wait if self._end is None else max(0.0, min(wait, self._end - now)))

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


def interface(name: str, largest: int) -> int:
    """An interface's index. Errors: AttachError if it is missing, down, or too narrow for frames of so many bytes."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        raise AttachError(f"there is no interface {name}: ip link shows those there are") from None
    request = struct.pack("16s16x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack_from("=H", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        mtu = struct.unpack_from("=i", fcntl.ioctl(any_socket, _SIOCGIFMTU, request), 16)[0]
    if not flags & _IFF_UP:
        raise AttachError(f"cannot send on {name}: it is down, try ip link set {name} up")
    if largest > mtu + 18:  # Ethernet header and one VLAN tag
        raise AttachError(
            f"cannot send frames of {largest} bytes on {name}: its MTU is {mtu}, "
            f"try ip link set {name} mtu {largest - 14}"
        )
    return index


# --- By a packet socket -----------------------------------------------------------------------------------------------


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_size_t), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = [
        ("name", ctypes.c_size_t), ("name_length", ctypes.c_uint), ("vectors", ctypes.c_size_t),
        ("vector_count", ctypes.c_size_t), ("control", ctypes.c_size_t), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]  # fmt: skip


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


_libc = ctypes.CDLL(None, use_errno=True)


class PacketSocket:
    """A raw socket that only sends. A context manager. Errors: AttachError."""

    def __init__(self, name: str) -> None:
        interface(name, 0)
        self.name = name
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise AttachError(f"cannot send on {name}: not permitted, run as root (sudo)") from None
        try:
            self._socket.bind((name, 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        except OSError as error:
            self._socket.close()
            raise AttachError(f"cannot send on {name}: {error.strerror}") from None
        self._vectors = (_Vector * _BATCH)()
        self._messages = (_Message * _BATCH)()
        self._spans = np.frombuffer(memoryview(self._vectors).cast("B"), np.uintp).reshape(_BATCH, 2)
        for i in range(_BATCH):
            self._messages[i].header.vectors = ctypes.addressof(self._vectors) + i * ctypes.sizeof(_Vector)
            self._messages[i].header.vector_count = 1

    def send(self, data: np.ndarray, start: np.ndarray, length: np.ndarray) -> int:
        """Send frames: of contiguous bytes data (any shape), those that begin at start (n,) and have that length (n,).

        Gives how many the kernel took: all of them, or fewer where the interface does not get rid of them for
        2 seconds.
        """
        base, done, total = data.ctypes.data, 0, len(start)
        stuck = 0.0
        while done < total:
            n = min(_BATCH, total - done)
            self._spans[:n, 0] = base + start[done : done + n]
            self._spans[:n, 1] = length[done : done + n]
            taken = _libc.sendmmsg(self._socket.fileno(), self._messages, n, 0)
            if taken > 0:
                done += taken
                stuck = 0.0
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            if number not in (errno.ENOBUFS, errno.EAGAIN):
                raise self._error(number, int(length[done]))
            now = time.monotonic()
            stuck = stuck or now
            if now - stuck > _STUCK_S:
                break
            select.select([], [self._socket], [], 0.001)
            os.sched_yield()
        return done

    def _error(self, number: int, length: int) -> AttachError:
        advice = {
            errno.ENETDOWN: f"it is down, try ip link set {self.name} up",
            errno.ENXIO: "it is gone",
            errno.ENODEV: "it is gone",
            errno.EMSGSIZE: f"a frame of {length} bytes is too large, try ip link set {self.name} mtu {length - 14}",
            errno.EINVAL: f"a frame of {length} bytes is not one",
        }
        return AttachError(f"cannot send on {self.name}: {advice.get(number, os.strerror(number))}")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> PacketSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def send_frames(
    parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    name: str,
    *,
    rate: float | None = None,
    count: int | None = None,
    seconds: float | None = None,
    tell: Tell = silently,
) -> Sent:
    """Send frames by a packet socket, paced. parts: (data, start, length) as PacketSocket.send takes them.

    Ends where parts do, or earlier. Errors: AttachError.
    """
    result = Sent(method="packet")
    with PacketSocket(name) as raw:
        pace = Pace(rate, count, seconds, _BATCH if seconds is not None or rate is not None else _CHUNK)
        try:
            for data, start, length in parts:
                at = 0
                while at < len(start):
                    n = min(pace.due(result.offered), len(start) - at)
                    taken = raw.send(data, start[at : at + n], length[at : at + n])
                    result.sent += taken
                    at += n
                    tell(result.offered)
                    if taken < n:
                        result.dropped += n - taken
                        raise AttachError(f"{name} took no frame for {_STUCK_S:g} seconds: is its link up?")
                    if n == 0:
                        break
                if at < len(start):
                    break
        except KeyboardInterrupt:
            result.interrupted = True
        result.seconds = pace.elapsed
    return result


# --- By live frames ---------------------------------------------------------------------------------------------------

_RUN = np.dtype(
    [
        ("index", "u8"),
        ("pending", "u8"),
        ("sent", "u8"),
        ("dropped", "u8"),
        ("error", "i8"),
        ("turn", "u4"),
        ("cpu", "u4"),
    ]
)


class _Refused(Exception):
    """This kernel or this interface does not do it: another way has to be tried."""


class _Attached:
    """An XDP program attached to the loopback of a network namespace that nothing else is in.

    The kernel patches its XDP dispatcher when a program is first run or attached, and waits for all CPUs each time:
    24 ms a test run. Of a program that is attached somewhere it only counts the users, and a test run of 64 frames
    takes 0.03 ms. Without the right to make a namespace it stays slow: no error.
    """

    def __init__(self, function: int) -> None:
        self._descriptors: list[int] = []
        helper = threading.Thread(target=self._attach, args=(function,), name="namespace")
        helper.start()  # a thread, since it never comes back from the namespace
        helper.join()

    def _attach(self, function: int) -> None:
        if _libc.unshare(_CLONE_NEWNET):
            return
        with contextlib.suppress(OSError):
            self._descriptors.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            self._descriptors.append(kernel.link_create(function, 1, kernel.XDP_FLAGS_SKB_MODE))

    def close(self) -> None:
        """Detach, and let the namespace go."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


class LiveSender:
    """bpf/generate.c, loaded and filled for one traffic and interface. Close it after use.

    Errors: LoadError.
    """

    def __init__(self, t: Traffic, name: str) -> None:
        model = Model(t)
        templates = traffic.Templates(model)
        largest = int(templates.lengths.max())
        self._index = interface(name, largest)
        self._packet = bytes(largest)
        room = 1 << (largest - 1).bit_length()
        top = model.topology
        self._program = Program("generate.c", _defines(t, model, templates, self._index, room))
        self._tracepoint = -1
        self._attached: _Attached | None = None
        try:
            self._function = self._program.load("generate")
            self._attached = _Attached(self._function)
            self._load_tracepoint()
            self._runs = self._program.map_fd("runs")

            sources = np.zeros(
                len(top.reporters), np.dtype([("next", "u4"), ("last", "u4"), ("late", "u4"), ("pad", "u4")])
            )
            sources["next"] = t.first_sequence_number
            self._fill("sources", sources)

            turns = np.zeros(
                t.turns,
                np.dtype(
                    [("source", "u4"), ("hop", "u4"), ("since", "u4"), ("moved", "u4"), ("switch_id", "u4", 2),
                     ("port", "u4", t.records + 1), ("queue", "u4", t.records + 1),
                     ("latency_level", "u4", t.records + 1)]
                ),
            )  # fmt: skip
            turns["source"], turns["hop"], turns["since"] = top.source, top.hop[:, 0], top.since
            turns["switch_id"] = np.stack([top.switch_id[:, t.changing_hops - 1], top.other_switch], axis=1)
            turns["port"], turns["queue"] = top.port_point, top.queue_point
            self._fill("turns", turns)

            kinds = len(templates.frames)
            frames = np.zeros(
                (t.turns, kinds),
                np.dtype(
                    [("length", "u4"), ("report", "u4"), ("records", "u4"), ("pad", "u4"), ("bytes", "u1", room + 8)]
                ),
            )
            frames["length"] = templates.lengths.T
            frames["report"] = (templates.report - templates.start)[:, None]
            frames["records"] = (templates.records - templates.start)[:, None]
            for turn in range(t.turns):
                for kind in range(kinds):
                    start, end = templates.start[turn], templates.end[kind, turn]
                    frames["bytes"][turn, kind, : end - start] = templates.frames[kind, turn, start:end]
            self._fill("frames", frames.reshape(-1))
        except BaseException:
            self.close()
            raise

    def _fill(self, table: str, values: np.ndarray) -> None:
        descriptor = self._program.map_fd(table)
        for i in range(len(values)):
            kernel.map_update(descriptor, struct.pack("=I", i), values[i].tobytes())

    def _load_tracepoint(self) -> None:
        bpf = self._program.bpf
        try:
            function = bpf.load_func(b"taken", type(bpf).RAW_TRACEPOINT).fd
            name = ctypes.create_string_buffer(b"xdp_devmap_xmit")
            self._tracepoint = kernel.bpf(
                _RAW_TRACEPOINT_OPEN, struct.pack("=QII", ctypes.addressof(name), function, 0)
            )
        except Exception as error:  # noqa: BLE001 - bcc raises bare Exception
            raise LoadError(f"cannot count what is transmitted: {error}") from None

    def state(self) -> np.ndarray:
        """How far it is: _RUN (), of which index, sent, dropped and error."""
        state = np.zeros((), _RUN)
        kernel.map_lookup(self._runs, bytes(4), state.reshape(1))
        return state

    def run(self, n: int) -> None:
        """Make and send n more frames; a signal may end it early. Errors: OSError where there are no live frames."""
        with contextlib.suppress(InterruptedError):
            kernel.test_run_live(self._function, self._packet, self._index, repeat=n, batch=min(64, n))

    def close(self) -> None:
        """Unload everything."""
        if self._attached:
            self._attached.close()
        if self._tracepoint >= 0:
            os.close(self._tracepoint)
            self._tracepoint = -1
        self._program.close()


def _defines(t: Traffic, model: Model, templates: traffic.Templates, index: int, room: int) -> list[str]:
    bits = {
        "SWITCH": 0x8000,
        "LATENCY": 0x2000,
        "QUEUE": 0x1000,
        "INGRESS": 0x0800,
        "EGRESS": 0x0400,
        "UTILIZATION": 0x0100,
    }
    offsets = t.offsets
    kinds = t.event_kinds
    threshold = traffic._threshold
    values = {
        "TURNS": t.turns,
        "SOURCES": len(model.topology.reporters),
        "HOPS": t.records,
        "POSTCARDS": int(t.postcards),
        "SEQUENCE_AT": traffic.SEQUENCE_AT[t.report_version],
        "SEQUENCE_BITS": t.sequence_bits,
        "LOCAL_STAMP_AT": traffic.LOCAL_STAMP_AT[t.report_version],
        "CHANGING": t.changing_hops,
        "HOP_BYTES": t.hop_bytes,
        "KINDS": len(templates.frames),
        "FRAME": room,
        "LARGEST": int(templates.lengths.max()),
        "PORT_POINTS": int(model.topology.port_point.max()) + 1,
        "QUEUE_POINTS": int(model.topology.queue_point.max()) + 1,
        "SHARE_BITS": traffic.SHARE_BITS,
        "LOSS_BELOW": threshold(t.loss),
        "DUPLICATE_BELOW": threshold(t.loss, t.duplicates),
        "REORDER_BELOW": threshold(t.loss, t.duplicates, t.reordered),
        "DROP_BELOW": threshold(t.drop_reports),
        "CONGESTION_BELOW": threshold(t.drop_reports, t.congestion_reports),
        "PATH_BELOW": threshold(t.drop_reports, t.congestion_reports, t.path_changes),
        "EVENT_BELOW": threshold(t.drop_reports, t.congestion_reports, t.path_changes, t.event_rate),
        "EVENT_KINDS": max(1, len(kinds)),
        "EVENT_LATENCY": kinds.index(bits["LATENCY"]) if bits["LATENCY"] in kinds else 99,
        "EVENT_QUEUE": kinds.index(bits["QUEUE"]) if bits["QUEUE"] in kinds else 99,
        "AMPLITUDE": traffic.NOISE // 2 // t.hops + 1,
        "LATENCY": traffic.LATENCY,
        "LATENCY_STEP": traffic.LATENCY_STEP,
        "OCCUPANCY": traffic.OCCUPANCY,
        "UTILIZATION": traffic.UTILIZATION,
        "STEP": traffic.STEP,
        "HOP_GAP_NS": traffic.HOP_GAP_NS,
        "START_NS": f"{t.start_ns // 2 * 2}ULL",
        "INTERVAL_NS": f"{t.interval_ns}ULL",
        "SEED": f"{t.seed}ULL",
        "IFINDEX": index,
        "WIDE_STAMPS": int(bool(t.wide & bits["INGRESS"])),
    }
    values.update({f"AT_{name}": offsets.get(bit, -1) for name, bit in bits.items()})
    if len(np.unique(templates.lengths)) == 1:
        values["ONE_SIZE"] = 1
    return [f"{name}={value}" for name, value in values.items()]


def _send_live(t: Traffic, name: str, rate: float | None, count: int | None, seconds: float | None, tell: Tell) -> Sent:
    """Errors: _Refused before anything was sent, LoadError."""
    if t.individuals > 1:
        raise _Refused(f"live frames hold one report each, not {t.individuals}")
    sender = LiveSender(t, name)
    result = Sent(method="live")
    try:
        pace = Pace(rate, count, seconds, _CHUNK)
        done = 0
        try:
            while n := pace.due(done):
                try:
                    sender.run(n if done else min(n, 64))
                except OSError as error:
                    if done:
                        raise AttachError(f"cannot send on {name} any more: {error.strerror}") from None
                    raise _Refused(f"this kernel has no live frames (Linux 5.18): {error.strerror}") from None
                state = sender.state()
                if done == 0 and state["sent"] == 0 and state["index"]:
                    why = os.strerror(-int(state["error"])) if state["error"] else "its driver takes none"
                    raise _Refused(
                        f"{name} takes no redirected frames ({why}): on a veth pair, switch GRO on at the peer"
                    )
                done = int(state["index"])
                tell(done)
        except KeyboardInterrupt:
            result.interrupted = True
        result.seconds = pace.elapsed
        state = sender.state()
        result.sent, result.dropped = int(state["sent"]), int(state["index"]) - int(state["sent"])
    finally:
        sender.close()
    return result


def _send_packets(
    t: Traffic, name: str, rate: float | None, count: int | None, seconds: float | None, tell: Tell
) -> Sent:
    model = Model(dataclasses.replace(t, packets=2**40 if count is None else count))
    templates = traffic.Templates(model)
    interface(name, templates.longest)
    each = 1.0
    if t.individuals > 1:  # frames are fewer than reports, and end with them
        each = float((model.topology.head == np.arange(t.turns)).mean())
        rate, count = rate and rate * each, count and 2**62

    def parts() -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for block in traffic.blocks(model, templates):
            yield block.data, block.at, block.length

    return send_frames(
        parts(), name, rate=rate, count=count, seconds=seconds, tell=lambda frames: tell(round(frames / each))
    )


def send(
    t: Traffic,
    name: str,
    *,
    rate: float | None = None,
    count: int | None = None,
    seconds: float | None = None,
    method: str = "auto",
    tell: Tell = silently,
) -> Sent:
    """Send traffic on an interface: count reports (default: the traffic's) or for some seconds, whichever ends first.

    rate: reports a second; None: as fast as possible. What is Sent counts frames. method: "live", "packet", or "auto":
    live frames if they work. tell: is told how many reports were offered. Ctrl-C ends it early. Errors: AttachError
    (missing, down, not permitted), UsageError; for "live" also LoadError.
    """
    if count is None and seconds is None:
        count = t.packets
    if method == "packet":
        return _send_packets(t, name, rate, count, seconds, tell)
    try:
        return _send_live(t, name, rate, count, seconds, tell)
    except (_Refused, LoadError) as error:
        if method == "live":
            raise error if isinstance(error, IntCollectorError) else AttachError(str(error)) from None
        return dataclasses.replace(_send_packets(t, name, rate, count, seconds, tell), why=str(error).splitlines()[0])
