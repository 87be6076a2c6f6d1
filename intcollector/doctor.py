"""What stands in the way of a collector on this machine, and what to do about it: looks, and changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import importlib.util
import os
import pathlib
import re
import socket
import struct
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any

from . import compiled, diagnosis, kernel, listening, watching, wire
from .config import Config
from .datapath import Datapath
from .diagnosis import Finding, Interface, Tally
from .errors import AttachError, LoadError, UsageError
from .exporters.influxdb_server import NoAnswer, Server
from .program import FUNCTION, SPREAD

OUR_PROGRAMS = (FUNCTION, SPREAD)
"""The names of our XDP programs that are for an interface, as the kernel knows them (bpf/collector.c)."""

INSTALL = "run `sh intcollector/demo.sh` in the checkout, which installs it"


LISTEN_S = 2.0
"""How long is listened on an interface, if nothing else is said."""


def diagnose(interface: str | None, config: Config, listen: float | None = 0.0) -> list[Finding]:
    """Everything that matters to `run interface` with this configuration; without an interface, all but that.

    listen: seconds in which is looked at what comes in there, if no collector runs on it; None: LISTEN_S, where that is
    possible.
    """
    findings = [
        *kernel_version(os.uname().release),
        privileges(pathlib.Path("/proc/self/status").read_text(), _version(os.uname().release)),
        bpf_call(),
        jit(_read("/proc/sys/net/core/bpf_jit_enable")),
        python_version(sys.version_info[:2]),
        *bcc(),
        headers(("/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}")),
        *compiled_programs(compiled.folder()),
    ]
    at_endpoint: Finding | None = None
    arrival: list[Finding] = []
    if interface is not None:
        there = look_at(interface)
        findings += there.findings
        if there.is_ours:
            at_endpoint, arrival = of_collector(interface, config)
        elif there.up and listen != 0:
            arrival = of_listening(interface, config, listen)
    if config.prometheus is not None:
        findings.append(at_endpoint or prometheus(*config.prometheus))
    if config.influxdb is not None:
        findings += influxdb(config)
    if config.kafka is not None:
        findings.append(kafka(config))
    return findings + arrival


# --- the kernel -------------------------------------------------------------------------------------------------------

MINIMUM = (5, 3)
"""Bounded loops: before, no program with a loop verifies."""

FEATURES = (
    ((5, 6), "batches of map entries", "maps are read entry by entry, slower"),
    ((5, 8), "ring buffer", "events go up by perf buffer"),
    ((5, 9), "XDP links", "a collector that is killed leaves its program on the interface"),
    ((5, 11), "coarse clock", "each report costs some 40 ns more"),
    ((5, 18), "live frames", "`generate -i` and `replay` send slowly"),
)
"""What came with which kernel, and what it is like without."""


def _version(release: str) -> tuple[int, int]:
    """`6.1.0-13-amd64` -> (6, 1); (0, 0) if it does not begin like a version."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def kernel_version(release: str) -> list[Finding]:
    """release: as `uname -r` prints it."""
    version = _version(release)
    if version < MINIMUM:
        found = f"Linux {release}: loops do not verify before {MINIMUM[0]}.{MINIMUM[1]}"
        return [
            Finding(
                "kernel",
                "bad",
                found,
                "use a newer kernel: 5.15 (Ubuntu 22.04) or later has everything but live frames",
            )
        ]
    lacking = [(f"{a}.{b}", name, without) for (a, b), name, without in FEATURES if version < (a, b)]
    if not lacking:
        return [Finding("kernel", "ok", f"Linux {release}")]
    return [
        Finding(
            "kernel", "warn", f"Linux {release} has no {name} (since {since}): {without}", f"use Linux {since} or later"
        )
        for since, name, without in lacking
    ]


_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def privileges(status: str, version: tuple[int, int]) -> Finding:
    """status: the text of /proc/self/status. Before Linux 5.8 CAP_SYS_ADMIN stood for CAP_BPF and CAP_PERFMON."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    have = {name for name, bit in _CAPABILITIES.items() if effective >> bit & 1}
    finer = {"CAP_BPF", "CAP_PERFMON"}
    needed = {"CAP_NET_ADMIN"} | (
        set() if "CAP_SYS_ADMIN" in have else finer if version >= (5, 8) else {"CAP_SYS_ADMIN"}
    )
    if missing := sorted(needed - have):
        return Finding("privileges", "bad", f"without {', '.join(missing)}", "run as root (sudo)")
    return Finding("privileges", "ok", ", ".join(sorted(have)))


_MAP_CREATE, _ARRAY = 0, 2


def bpf_call() -> Finding:
    """Whether bpf(2) makes a map: it may be missing from the kernel, or forbidden by what the process runs in."""
    try:
        os.close(kernel.bpf(_MAP_CREATE, struct.pack("=IIII", _ARRAY, 4, 4, 1) + bytes(56)))
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error))
        advice = {
            "ENOSYS": "use a kernel built with CONFIG_BPF_SYSCALL",
            "EPERM": "run as root (sudo); in a container, give it CAP_BPF and CAP_NET_ADMIN and allow bpf",
        }.get(name, "see bpf(2) for this error")
        return Finding("bpf(2)", "bad", f"cannot make a map ({name})", advice)
    return Finding("bpf(2)", "ok", "makes a map")


def jit(setting: str | None) -> Finding:
    """setting: of net.core.bpf_jit_enable; None if the kernel has no such file."""
    if setting == "1":
        return Finding("BPF JIT", "ok", "on")
    if setting is None:
        return Finding(
            "BPF JIT",
            "warn",
            "/proc/sys/net/core/bpf_jit_enable is not readable",
            "run as root (sudo), and not in a network namespace",
        )
    if setting == "0":
        return Finding(
            "BPF JIT", "warn", "off: programs are interpreted, many times slower", "sysctl -w net.core.bpf_jit_enable=1"
        )
    return Finding("BPF JIT", "warn", f"on, for debugging ({setting})", "sysctl -w net.core.bpf_jit_enable=1")


# --- what is installed ------------------------------------------------------------------------------------------------


def python_version(version: tuple[int, int]) -> Finding:
    """version: of this Python, major and minor."""
    found = f"{version[0]}.{version[1]} ({sys.executable})"
    if version < (3, 10):
        return Finding("Python", "bad", found, "use Python 3.10 or later: Debian 12, Ubuntu 22.04")
    if version > (3, 13):
        return Finding("Python", "warn", f"{found}: not tried", "use 3.10 to 3.13 if something fails")
    return Finding("Python", "ok", found)


def bcc(folder: pathlib.Path | None = None) -> list[Finding]:
    """The Python module bcc and its library. folder: of the module; by default the one `import bcc` would take."""
    if folder is None:
        spec = importlib.util.find_spec("bcc")
        if spec is None or not spec.origin:
            return [
                Finding(
                    "bcc", "bad", f"{sys.executable} does not see it", f"it is the package python3-bpfcc: {INSTALL}"
                )
            ]
        folder = pathlib.Path(spec.origin).parent
    if not (folder / "libbcc.py").is_file():
        found = f"{folder} is another program of that name, as on PyPI"
        return [Finding("bcc", "bad", found, "remove it (pip uninstall bcc) and use the distribution's python3-bpfcc")]
    version = re.search(r"__version__ = '([^']+)'", _read(str(folder / "version.py")) or "")
    name = re.search(r"CDLL\(\"(libbcc[^\"]*)\"", _read(str(folder / "libbcc.py")) or "")
    library = name[1] if name else "libbcc.so.0"
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return [
            Finding("bcc", "bad", f"{folder} cannot load {library}: {error}", "apt-get install --reinstall libbpfcc")
        ]
    return [Finding("bcc", "ok", f"{version[1] if version else 'unknown version'} ({folder})")]


def headers(folders: tuple[str, ...]) -> Finding:
    """The system's <linux/*.h> and <asm/*.h>; not those of the running kernel, which nothing here needs."""
    missing = [n for n in ("linux/bpf.h", "asm/types.h") if not any(pathlib.Path(f, n).is_file() for f in folders)]
    if missing:
        return Finding(
            "headers", "bad", f"no <{missing[0]}> in {' or '.join(folders)}", f"they are in linux-libc-dev: {INSTALL}"
        )
    return Finding("headers", "ok", folders[0])


def compiled_programs(folder: pathlib.Path | None) -> list[Finding]:
    """Where compiled programs are kept, and whether that works: without, each start compiles. None: not wanted."""
    what = "programs"
    if folder is None:
        return [Finding(what, "ok", f"compiled at every start, as {compiled.FOLDER_VARIABLE} is empty")]
    elsewhere = f"or name another folder in {compiled.FOLDER_VARIABLE}"
    try:
        said = folder.stat()
        files = sorted(path for path in folder.iterdir() if path.suffix == compiled.SUFFIX)
        states = [(path, path.stat()) for path in files]
    except FileNotFoundError:
        if os.access(folder.parent, os.W_OK | os.X_OK, effective_ids=True):
            return [Finding(what, "ok", f"kept in {folder} once compiled: none yet")]
        found = f"compiled at every start: {folder} is not there and cannot be made"
        return [Finding(what, "warn", found, f"mkdir -p {folder}, {elsewhere}")]
    except OSError as error:
        found = f"compiled at every start: {folder} cannot be read ({error.strerror})"
        return [Finding(what, "warn", found, f"run as root (sudo), {elsewhere}")]
    if others := compiled.who_else(said):
        found = f"compiled at every start: {folder} can be written by {others}"
        return [Finding(what, "warn", found, f"chown root {folder}; chmod go-w {folder}; {elsewhere}")]
    bad = [
        Finding(what, "warn", f"{path} is not used: it can be written by {others}", f"rm {path}")
        for path, one in states
        if (others := compiled.who_else(one))
    ]
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        found = f"{folder} cannot be written to: what is not kept there is compiled at every start"
        return [*bad, Finding(what, "warn", found, f"make it writable for root, {elsewhere}")]
    return bad or [Finding(what, "ok", f"kept in {folder} once compiled: {len(files)}")]


# --- the interface ----------------------------------------------------------------------------------------------------

NATIVE_MTU = 3498
"""Bytes. In native mode a packet has one page, which also holds headroom and bookkeeping; drivers differ a little."""

_IFF_UP, _IFF_RUNNING = 1, 0x40

_XDP_BASIC = 1  # NETDEV_XDP_ACT_BASIC, <linux/netdev.h>


@dataclasses.dataclass(frozen=True)
class Looked:
    """At an interface. up: it is there, and packets can come in. is_ours: a collector runs on it."""

    findings: list[Finding]
    up: bool = False
    is_ours: bool = False


def network_interface(name: str) -> list[Finding]:
    """What netlink says of an interface."""
    return look_at(name).findings


def look_at(name: str) -> Looked:
    """The same, and what that means for looking further."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        links = {link.get_attr("IFLA_IFNAME"): link for link in route.get_links()}
        if name not in links:
            return Looked([Finding(name, "bad", "no such interface", f"there are {', '.join(sorted(links))}")])
        link = links[name]
    features = xdp_features(link["index"])
    up, carrier = bool(link["flags"] & _IFF_UP), bool(link["flags"] & _IFF_RUNNING)
    mode, program = _attached(link)
    findings = [
        _is_up(name, up, carrier),
        native_mode(name, _driver(name, link), features),
        mtu(name, int(link.get_attr("IFLA_MTU")), features),
        attached(name, mode, program),
    ]
    return Looked(findings, up and carrier, mode is not None and program in OUR_PROGRAMS)


def _is_up(name: str, up: bool, carrier: bool) -> Finding:
    if up and not carrier:
        return Finding(
            name, "warn", "up, and has no carrier: nothing arrives", "is the cable in, and the other end up?"
        )
    if up:
        return Finding(name, "ok", "up")
    return Finding(name, "warn", "down: nothing arrives", f"ip link set {name} up")


def native_mode(name: str, driver: str, features: int | None) -> Finding:
    """features: what the driver says it can (NETDEV_XDP_ACT_*), None if this kernel does not tell (before 6.3)."""
    if features is None:
        return Finding(name, "ok", f"driver {driver}; whether it has native XDP shows when the collector attaches")
    if features & _XDP_BASIC:
        return Finding(name, "ok", f"driver {driver} has native XDP")
    return Finding(
        name,
        "warn",
        f"driver {driver} has no native XDP: generic mode is slower",
        "use another interface for high rates",
    )


def mtu(name: str, size: int, features: int | None) -> Finding:
    """Whether a packet of this MTU fits into what native mode gives it."""
    if size <= NATIVE_MTU or (features is not None and not features & _XDP_BASIC):
        return Finding(name, "ok", f"MTU {size}")
    return Finding(
        name,
        "warn",
        f"MTU {size}: most drivers refuse native XDP above about {NATIVE_MTU}",
        f"ip link set {name} mtu 3400, or --xdp-mode generic",
    )


def attached(name: str, mode: str | None, program: str) -> Finding:
    """mode: of the XDP program that is on the interface now, None if there is none; program: its name."""
    if mode is None:
        return Finding(name, "ok", "no XDP program on it")
    if program in OUR_PROGRAMS:
        return Finding(name, "warn", f"a collector runs on it ({mode})", "stop it before you start another")
    return Finding(
        name,
        "bad",
        f"has the XDP program {program or 'without a name'} ({mode})",
        f"ip link set {name} xdp off, or run with --force",
    )


def _attached(link: Any) -> tuple[str | None, str]:
    """Mode and name of the XDP program of a link as netlink describes it."""
    attributes = dict(link.get_attr("IFLA_XDP")["attrs"]) if link.get_attr("IFLA_XDP") else {}
    modes = {"DRV": "native", "SKB": "generic", "HW": "offloaded"}
    on = [(mode, attributes[key]) for kind, mode in modes.items() if attributes.get(key := f"IFLA_XDP_{kind}_PROG_ID")]
    if not on:
        return None, ""
    name = ""
    with contextlib.suppress(OSError):  # not root, or gone meanwhile
        name = kernel.program_name(on[0][1])
    return " and ".join(mode for mode, _ in on), name


def _driver(name: str, link: Any) -> str:
    """The driver of an interface; of a virtual one, its kind."""
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/device/driver"))
    information = link.get_attr("IFLA_LINKINFO")
    return str((information and information.get_attr("IFLA_INFO_KIND")) or "of a virtual interface")


def xdp_features(index: int) -> int | None:
    """What an interface's driver can do, as NETDEV_XDP_ACT_*; None if the kernel does not tell (before 6.3)."""
    from pyroute2.netlink import NLM_F_REQUEST, genlmsg
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Device(genlmsg):  # type: ignore[misc]
        """NETDEV_A_DEV_*, <linux/netdev.h>."""

        nla_map = (
            ("NETDEV_A_DEV_UNSPEC", "none"),
            ("NETDEV_A_DEV_IFINDEX", "uint32"),
            ("NETDEV_A_DEV_PAD", "hex"),
            ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        )

    request = Device()
    request["cmd"], request["version"] = 1, 1  # NETDEV_CMD_DEV_GET
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
    with GenericNetlinkSocket() as netlink:
        getattr(netlink, "asyncore", netlink).module_err_level = "debug"  # else it warns of a missing family on stderr
        try:
            netlink.bind("netdev", Device)
            for answer in netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST):
                return int(answer.get_attr("NETDEV_A_DEV_XDP_FEATURES"))
        except NetlinkError:
            pass
    return None


# --- what arrives -----------------------------------------------------------------------------------------------------


def of_collector(interface: str, config: Config) -> tuple[Finding | None, list[Finding]]:
    """What the collector that runs on an interface says of itself, and what its endpoint is; the latter None if it is
    not known to be its own."""
    if config.prometheus is None:
        return None, []
    host, port = config.prometheus
    where = f"{host}:{port}"
    other = "give the address that it was started with: `--prometheus [HOST:]PORT`"
    address = watching.Address(f"[{host}]:{port}" if ":" in host else where)
    try:
        watched = [
            one["name"] for one in watching.get(address, "/collector", watching.PICTURE["collector"])["interfaces"]
        ]
        said = watching.get(address, "/diagnosis", watching.PICTURE["diagnosis"])
        findings = [Finding(one["what"], one["state"], one["found"], one["advice"]) for one in said]
    except (watching.WatchError, KeyError, TypeError):
        found = f"the collector on {interface} does not answer at {where}: what it sees is not known"
        return None, [Finding("collector", "warn", found, other)]
    if interface not in watched:
        found = f"the collector that answers at {where} is on {', '.join(watched) or 'no interface'}, not {interface}"
        return None, [Finding("collector", "warn", found, other)]
    return Finding("Prometheus", "ok", f"{where} is the endpoint of the collector on {interface}"), findings


def of_listening(interface: str, config: Config, seconds: float | None) -> list[Finding]:
    """What comes in on an interface, as a collector there would see it."""
    try:
        heard = listening.listen(interface, LISTEN_S if seconds is None else seconds)
    except AttachError as error:
        if seconds is None:
            return []
        return [Finding("listening", "warn", str(error), "or do without: `--listen 0`")]
    missed = f", and {heard.missed:,} that were not looked at" if heard.missed else ""
    packets = f"{len(heard.frames):,} packet{'s' * (len(heard.frames) != 1)}"
    listened = Finding("listening", "ok", f"{packets} on {interface} in {heard.seconds:.3g} s{missed}")
    return [listened, *diagnose_frames(heard.frames, heard.seconds, interface, config)]


def diagnose_frames(frames: Sequence[bytes], seconds: float, interface: str, config: Config) -> list[Finding]:
    """Of frames that came in on an interface in so many seconds."""
    tally = Tally(config, "heard")
    for frame in frames:
        tally.add(frame, wire.decode(frame, config))
    return diagnosis.diagnose(tally.seen(seconds, (Interface(interface, up=True),)))


# --- the servers ------------------------------------------------------------------------------------------------------


def prometheus(host: str, port: int) -> Finding:
    """Whether the endpoint's address can be taken."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen()
    except OSError as error:
        advice = "choose another address: --prometheus [HOST:]PORT"
        if error.errno == errno.EADDRINUSE:
            return Finding("Prometheus", "bad", f"{host}:{port} is in use, by another collector or program", advice)
        return Finding("Prometheus", "bad", f"cannot listen on {host}:{port}: {error.strerror or error}", advice)
    return Finding("Prometheus", "ok", f"{host}:{port} is free")


def influxdb(config: Config) -> list[Finding]:
    """Whether an InfluxDB server answers, which version it is, and whether we may write. Nothing is written."""
    try:
        server = Server(config)
    except UsageError as error:
        return [Finding("InfluxDB", "bad", str(error), "correct the options: docs/influxdb.md has them by version")]
    findings = [Finding("InfluxDB", "warn", text, "see docs/influxdb.md") for text in server.warnings]
    with contextlib.closing(server):
        try:
            return [*findings, _influxdb_version(server), _influxdb_writing(server)]
        except NoAnswer as error:
            advice = (
                "start it, or correct --influxdb: the collector would keep points for it, and lose what finds no room"
            )
            return [*findings, Finding("InfluxDB", "warn", str(error), advice)]


ASK_S = 3.0
"""How long a server may take to answer one question."""


def _influxdb_version(server: Server) -> Finding:
    answer = server.get("/ping", ASK_S)
    if not answer.version and answer.status not in (401, 403):
        answer = server.get("/health", ASK_S)
    version = answer.version
    if not version and answer.status in (401, 403):  # 3 tells its version to those it knows
        return Finding("InfluxDB", "ok", f"answers at {server.shown}")
    if not version or answer.status >= 300:
        return Finding(
            "InfluxDB", "bad", f"{server.shown} answers {answer.status}, not as InfluxDB does", "correct --influxdb"
        )
    if version[0] in "123" and int(version[0]) != server.version:
        return Finding(
            "InfluxDB",
            "warn",
            f"{version} at {server.shown}, written to as InfluxDB {server.version}",
            f"--influxdb-version {version[0]}, with what it needs: docs/influxdb.md",
        )
    return Finding("InfluxDB", "ok", f"{version} at {server.shown}")


def _influxdb_writing(server: Server) -> Finding:
    what = "InfluxDB writes"
    answer = server.try_to_write(ASK_S)
    said = f"{answer.status}{f' ({answer.said})' if answer.said else ''}"
    if answer.status == 401:
        return Finding(what, "bad", f"refused: {said}", server.unknown)
    if answer.status == 403:
        return Finding(what, "bad", f"refused: {said}", "let this user or token write there")
    if answer.stored or (answer.status == 400 and server.version > 1):
        return Finding(what, "ok", "would be accepted")
    if answer.status == 404 and "database not found" in answer.said:
        return Finding(what, "ok", "the database is not there yet: the collector makes it, if it may")
    if answer.status == 404:
        return Finding(what, "bad", f"refused: {said}", "make the bucket or database, or correct its name")
    return Finding(what, "warn", f"not accepted at the moment: {said}", "look into the server's log")


def kafka(config: Config) -> Finding:
    """Whether brokers answer, the topic is there, and we may write to it. Nothing is made or written."""
    from .exporters.delivery import Refusal
    from .exporters.kafka import look

    where = f"topic {config.kafka_topic} at {config.kafka}"
    try:
        partitions, allowed = look(config, ASK_S)
    except UsageError as error:
        return Finding("Kafka", "bad", str(error), "correct the file of --kafka-config: docs/kafka.md")
    except Refusal as refusal:
        if refusal.kind == "no topic":
            found, _, advice = str(refusal).partition(": ")
            return Finding("Kafka", "bad", found, advice)
        if refusal.kind == "not allowed":
            return Finding("Kafka", "bad", f"{where}: {refusal}", "let this user describe and write it")
        advice = "start a broker, or correct --kafka and --kafka-config: the collector would keep events for it"
        return Finding("Kafka", "warn", f"topic {config.kafka_topic}: {refusal}", advice)
    if not allowed:
        return Finding("Kafka", "bad", f"{where}: this user may not write to it", "let it write there")
    return Finding("Kafka", "ok", f"{where}, {partitions} partition{'s' * (partitions != 1)}")


def _read(path: str) -> str | None:
    """A small file's text without white space around it, or None if it cannot be read."""
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return None


# --- the program itself -----------------------------------------------------------------------------------------------


def program(config: Config) -> Finding:
    """Does the kernel program compile, verify and load here? What is kept is left alone."""
    try:
        datapath = Datapath(config, keep=False)
    except LoadError as error:
        return Finding("kernel program", "bad", str(error), "report this with the kernel's and bcc's versions above")
    said = datapath.loaded
    datapath.close()
    return Finding(
        "kernel program",
        "ok",
        f"compiled in {said.compile_s:.2f} s, verified and loaded in {said.load_s:.2f} s: {said.instructions} "
        f"instructions, {said.verified_instructions} looked at by the verifier, {datapath.transport.name} buffer",
    )
