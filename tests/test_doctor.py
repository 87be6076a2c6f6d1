"""doctor: what it says of a kernel, of what is installed, of an interface and of servers."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
from typing import Any

import pytest

from intcollector import capture, compiled, diagnosis, doctor, lab, listening, replay, traffic, wire
from intcollector.config import Config
from intcollector.diagnosis import Finding
from intcollector.errors import AttachError

from . import servers
from .collectors import Collector, Command, frames, intcollector, ip, network, send_frames
from .faulty import Reply, Request, Talk, faulty, say
from .needs import needs_root

ROOT = pathlib.Path(__file__).parents[1]


def run(script: str, *before: str) -> Any:
    """Run Python code that prints JSON, behind a command like unshare."""
    done = subprocess.run(
        [*before, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("release", "state", "lacking"),
    [
        ("4.19.0-26-amd64", "bad", "loops"),
        ("5.4.0-150-generic", "warn", "batches of map entries, ring buffer, XDP links, coarse clock, live frames"),
        ("5.10.0-28-amd64", "warn", "coarse clock, live frames"),
        ("5.15.0-91-generic", "warn", "live frames"),
        ("6.1.0-13-amd64", "ok", ""),
        ("10.0", "ok", ""),
        ("unknown", "bad", "loops"),
    ],
)
def test_kernel_version(release: str, state: str, lacking: str) -> None:
    """A kernel is told by its release what it lacks, and nothing that it has."""
    findings = doctor.kernel_version(release)
    assert {f.state for f in findings} == {state}
    everything = ["loops", *(name for _, name, _ in doctor.FEATURES)]
    said = [name for name in everything if any(name in f.found for f in findings)]
    assert ", ".join(said) == lacking
    assert all(bool(f.advice) == (state != "ok") for f in findings)


@pytest.mark.parametrize(
    ("capabilities", "version", "missing"),
    [
        ("000001ffffffffff", (6, 1), None),
        ("0000000000000000", (6, 1), "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"),
        ("0000000000001000", (6, 1), "CAP_BPF, CAP_PERFMON"),
        ("000000c000001000", (6, 1), None),
        ("0000000000201000", (6, 1), None),
        ("000000c000001000", (5, 4), "CAP_SYS_ADMIN"),
        ("0000000000201000", (5, 4), None),
    ],
)
def test_privileges(capabilities: str, version: tuple[int, int], missing: str | None) -> None:
    """Privileges are the capabilities that this kernel asks for, whoever has them."""
    finding = doctor.privileges(f"Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t{capabilities}\n", version)
    assert finding.state == ("bad" if missing else "ok")
    assert missing is None or finding.found == f"without {missing}"


@needs_root
def test_bpf_call() -> None:
    """bpf(2) works for root, and without capabilities is found forbidden."""
    assert doctor.bpf_call().state == "ok"
    if pathlib.Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() == "0":
        pytest.skip("this kernel lets everyone use bpf(2)")
    script = (
        "import json; from intcollector import doctor; f = doctor.bpf_call(); print(json.dumps([[f.state, f.found]]))"
    )
    assert run(script, "setpriv", "--bounding-set=-all", "--inh-caps=-all") == [["bad", "cannot make a map (EPERM)"]]


@pytest.mark.parametrize(("setting", "state"), [("1", "ok"), ("0", "warn"), ("2", "warn"), (None, "warn")])
def test_jit(setting: str | None, state: str) -> None:
    """The JIT is well only if on and not debugging."""
    assert doctor.jit(setting).state == state


@pytest.mark.parametrize(("version", "state"), [((3, 9), "bad"), ((3, 10), "ok"), ((3, 13), "ok"), ((3, 14), "warn")])
def test_python_version(version: tuple[int, int], state: str) -> None:
    """Python 3.10 to 3.13 are tried, older ones cannot do."""
    assert doctor.python_version(version).state == state


def test_bcc(tmp_path: pathlib.Path) -> None:
    """The distribution's bcc is told with its version, another program of that name is refused."""
    (finding,) = doctor.bcc()
    assert finding.state == "ok"
    assert finding.found.startswith("0.")
    (tmp_path / "__init__.py").touch()
    (finding,) = doctor.bcc(tmp_path)
    assert finding.state == "bad"
    assert "another program" in finding.found


def test_bcc_without_its_library(tmp_path: pathlib.Path) -> None:
    """A bcc whose library does not load is bad, and the library is named."""
    (tmp_path / "libbcc.py").write_text('lib = ct.CDLL("libbcc.so.999", use_errno=True)\n')
    (finding,) = doctor.bcc(tmp_path)
    assert finding.state == "bad"
    assert "libbcc.so.999" in finding.found


def test_headers(tmp_path: pathlib.Path) -> None:
    """Headers count wherever the compiler would find them, and a missing one is named."""
    a, b = tmp_path / "a", tmp_path / "b"
    (a / "linux").mkdir(parents=True)
    (a / "linux/bpf.h").touch()
    assert "<asm/types.h>" in doctor.headers((str(a), str(b))).found
    (b / "asm").mkdir(parents=True)
    (b / "asm/types.h").touch()
    assert doctor.headers((str(a), str(b))).state == "ok"


@needs_root
def test_the_program_is_compiled_to_be_looked_at(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--load compiles, also where a program is kept, and keeps nothing."""
    monkeypatch.setenv(compiled.FOLDER_VARIABLE, str(tmp_path / "kept"))
    finding = doctor.program(Config(ring_size=1, max_flows=4096))
    assert finding.state == "ok" and finding.found.startswith("compiled in ")
    assert not (tmp_path / "kept").exists()


def test_compiled_programs(tmp_path: pathlib.Path) -> None:
    """Where programs are kept is told; it is well where only root can write, and where nothing is to be kept."""

    def look(folder: pathlib.Path | None) -> tuple[str, str]:
        (finding,) = doctor.compiled_programs(folder)
        assert folder is None or str(folder) in finding.found
        assert bool(finding.advice) == (finding.state != "ok")
        return finding.state, finding.found

    assert look(None) == ("ok", "compiled at every start, as INTCOLLECTOR_CACHE is empty")
    folder = tmp_path / "kept"
    assert look(folder) == ("ok", f"kept in {folder} once compiled: none yet")
    assert look(folder / "below")[0] == "warn"
    folder.mkdir()
    folder.chmod(0o755)
    assert look(folder) == ("ok", f"kept in {folder} once compiled: 0")
    (folder / "one.program").touch(0o600)
    (folder / "other").touch(0o666)
    assert look(folder) == ("ok", f"kept in {folder} once compiled: 1")
    folder.chmod(0o775)
    assert look(folder) == ("warn", f"compiled at every start: {folder} can be written by others (mode 0775)")
    folder.chmod(0o755)
    (folder / "one.program").chmod(0o602)
    assert "one.program is not used: it can be written by others" in look(folder)[1]
    assert look(folder / "one.program")[0] == "warn"


@needs_root
def test_compiled_programs_where_they_cannot_be_kept(tmp_path: pathlib.Path) -> None:
    """A folder on a file system to read only, and another user's, are told."""
    folder = tmp_path / "kept"
    folder.mkdir()
    code = (
        "import json, pathlib; from intcollector import doctor;"
        f" (f,) = doctor.compiled_programs(pathlib.Path({str(folder)!r})); print(json.dumps([f.state, f.found]))"
    )
    mounted = f'mount --bind "{folder}" "{folder}"; mount -o remount,bind,ro "{folder}"; exec "$@"'
    state, found = run(code, "unshare", "--mount", "sh", "-eu", "-c", mounted, "sh")
    assert state == "warn" and "cannot be written to" in found
    os.chown(folder, 65534, 65534)
    assert run(code) == ["warn", f"compiled at every start: {folder} can be written by user 65534, whose it is"]


@pytest.mark.parametrize(
    ("size", "features", "state"), [(1500, 1, "ok"), (9000, 1, "warn"), (9000, None, "warn"), (9000, 0, "ok")]
)
def test_mtu(size: int, features: int | None, state: str) -> None:
    """A large MTU matters only where native mode is possible."""
    assert doctor.mtu("eth0", size, features).state == state


INTERFACES = """
import ctypes, json, struct
from pyroute2 import IPRoute
from intcollector import doctor, kernel

def program(name):
    code = bytes.fromhex("b700000002000000" "9500000000000000")  # return XDP_PASS
    code, license = ctypes.create_string_buffer(code, 16), ctypes.create_string_buffer(b"GPL")
    return kernel.bpf(kernel.PROG_LOAD, struct.pack("=IIQQIIQII16s", kernel.PROG_TYPE_XDP, 2, ctypes.addressof(code),
        ctypes.addressof(license), 0, 0, 0, 0, 0, name) + bytes(56))

def look(name):
    said.append([[f.state, f.found, f.advice] for f in doctor.network_interface(name)])

said = []
with IPRoute() as route:
    route.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
    index = route.link_lookup(ifname="a")[0]
    look("c")
    look("a")
    route.link("set", index=index, state="up", mtu=9000)
    look("a")
    route.link("set", index=route.link_lookup(ifname="b")[0], state="up")
    while not route.get_links(index)[0]["flags"] & 0x40:  # IFF_RUNNING
        pass
    look("a")
    route.link("set", index=index, mtu=1500)
    for name, flags in ((b"other", 4), (b"other", 2), (b"collector", 4)):
        link = kernel.link_create(program(name), index, flags)
        look("a")
        kernel.link_detach(link)
    look("lo")
print(json.dumps(said))
"""


@needs_root
def test_interfaces() -> None:
    """Of an interface it says: missing, down, without carrier, or up; driver, MTU, and whose program is on it, how."""
    missing, down, alone, large, native, generic, ours, loopback = run(INTERFACES, "unshare", "--net")
    assert missing == [["bad", "no such interface", "there are a, b, lo"]]
    assert down[0] == ["warn", "down: nothing arrives", "ip link set a up"]
    assert "driver veth" in down[1][1]
    assert alone[0] == ["warn", "up, and has no carrier: nothing arrives", "is the cable in, and the other end up?"]
    assert [f[0] for f in large] == ["ok", "ok", "warn", "ok"]
    assert large[3][1] == "no XDP program on it"
    assert native[3][:2] == ["bad", "has the XDP program other (native)"]
    assert "--force" in native[3][2]
    assert generic[3][:2] == ["bad", "has the XDP program other (generic)"]
    assert ours[3][:2] == ["warn", "a collector runs on it (native)"]
    assert loopback[3][0] == "ok"


def test_prometheus_address() -> None:
    """An address that is taken is bad, the same one given up is free, and one of another machine cannot be had."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in doctor.prometheus("127.0.0.1", port).found
    assert doctor.prometheus("127.0.0.1", port).state == "ok"
    assert doctor.prometheus("192.0.2.1", port).state == "bad"


def looked_at(url: str, **options: Any) -> list[tuple[str, str, str]]:
    """What doctor finds of an InfluxDB server."""
    findings = doctor.influxdb(Config(influxdb=url, **options))
    assert all(bool(f.advice) == (f.state != "ok") for f in findings)
    return [(f.what, f.state, f.found) for f in findings]


def told(ping: Reply, write: Reply) -> Reply:
    """A server that says one thing to /ping and /health, another to a write."""

    def reply(talk: Talk, request: Request) -> None:
        (write if "write" in request.path else ping)(talk, request)

    return reply


V2 = {"influxdb_org": "o", "influxdb_bucket": "b"}
V3 = {"influxdb_version": "3"}


@pytest.mark.parametrize(
    ("options", "ping", "write", "states", "found"),
    [
        ({}, say(404), say(404), ["bad", "bad"], "answers 404, not as InfluxDB does"),
        ({}, say(200, "<html>"), say(200, "<html>"), ["bad", "warn"], "not accepted at the moment: 200 (<html>)"),
        (V2, say(204, X_Influxdb_Version="v2.7.1"), say(400, {"message": "writing requires points"}), ["ok", "ok"],
         "2.7.1 at"),
        (V2, say(204, X_Influxdb_Version="v2.7.1"), say(401, {"message": "no"}), ["ok", "bad"], "refused: 401 (no)"),
        (V2, say(204, X_Influxdb_Version="v2.7.1"), say(404, {"message": 'bucket "b" not found'}), ["ok", "bad"],
         'refused: 404 (bucket "b" not found)'),
        (V2, say(200, {"name": "influxdb", "version": "v2.7.1"}), say(403), ["ok", "bad"], "refused: 403"),
        (V3, say(200, {"version": "3.2.1"}), say(400, "unknown precision"), ["ok", "ok"], "would be accepted"),
        (V3, say(401), say(401), ["ok", "bad"], "answers at"),
        ({}, say(204, X_Influxdb_Version="v2.7.1"), say(404, {"message": "x"}), ["warn", "bad"],
         "written to as InfluxDB 1"),
    ],
)  # fmt: skip
def test_influxdb_versions(options: dict[str, Any], ping: Reply, write: Reply, states: list[str], found: str) -> None:
    """Of a server it says which version it is, and whether it would take points; it sends it no line."""
    with faulty(told(ping, write)) as server:
        findings = looked_at(server.url, **options)
    assert [state for _, state, _ in findings] == states
    assert found in " ".join(text for _, _, text in findings)
    assert not any(request.body for request in server.requests)
    assert all("precision=none" in request.path for request in server.writes if options == V3)


def test_influxdb_options() -> None:
    """Options that contradict each other, or a secret's file that is not there, are bad."""
    assert looked_at("http://127.0.0.1:1", influxdb_org="o")[0][1] == "bad"
    ((_, state, found),) = looked_at("http://127.0.0.1:1", influxdb_version="3", influxdb_token="secret")
    assert state == "bad" and "secret itself" in found and "'secret'" not in found


def test_influxdb(tmp_path: pathlib.Path) -> None:
    """A real InfluxDB is told with its version, and whether this user may write; nothing is made there; stopped, it
    does not answer."""
    (tmp_path / "right").write_text("pw")
    (tmp_path / "wrong").write_text("no")
    for file in ("right", "wrong"):
        (tmp_path / file).chmod(0o600)
    right, wrong = ({"influxdb_user": "jo", "influxdb_password": str(tmp_path / file)} for file in ("right", "wrong"))
    with servers.influxdb(tmp_path / "influxdb", user=("jo", "pw")) as server:
        (_, state, version), writing = looked_at(server.url, **right)
        assert state == "ok" and version.startswith("1.") and version.endswith(f"at {server.url}")
        assert writing[1:] == ("ok", "the database is not there yet: the collector makes it, if it may")
        assert server.names("SHOW DATABASES") <= {"_internal"}
        server.query("CREATE DATABASE intcollector")
        assert looked_at(server.url, **right)[1][1:] == ("ok", "would be accepted")
        assert looked_at(server.url, **wrong)[1][1:] == ("bad", "refused: 401 (authorization failed)")
        assert looked_at(server.url)[1][1] == "bad"
        server.stop()
        ((_, state, found),) = looked_at(server.url, **right)
        assert state == "warn" and "Connection refused" in found


def test_diagnose_as_configured() -> None:
    """Only what the configuration names is looked at, and the text has a line for each finding and each advice."""
    findings = doctor.diagnose(None, Config(prometheus=None))
    assert {"kernel", "privileges", "bpf(2)", "BPF JIT", "Python", "bcc", "headers", "programs"} == {
        f.what for f in findings
    }
    findings = doctor.diagnose(None, Config(prometheus=("127.0.0.1", 0), influxdb="http://127.0.0.1:1"))
    assert {"Prometheus", "InfluxDB"} <= {f.what for f in findings}
    lines = diagnosis.text(findings).splitlines()
    assert len(lines) == len(findings) + sum(bool(f.advice) for f in findings)
    assert all(f.advice or f.state == "ok" for f in findings)


# --- what arrives -----------------------------------------------------------------------------------------------------

MALFORMED = "300 reports from 198.18.0.1 malformed (hop_ml_mismatch): they read right as `--profile onos`"

UNMARKED = "20 reports from 198.18.0.1 with INT that is not found: their packets have DSCP 5, and `--int-dscp` is 23"


def made(**fields: Any) -> list[bytes]:
    """Reports."""
    return list(traffic.frames(traffic.Traffic(flows=4, event_rate=0, **fields)))


def sent_while_listening(pair: lab.Lab, folder: pathlib.Path, *packets: bytes) -> list[bytes]:
    """What is heard at the near end when the far end sends these."""
    near = pair.names[0]

    def send() -> None:
        before = frames(near)[0]
        send_frames(pair, folder, *packets)
        servers.wait(lambda: frames(near)[0] >= before + len(packets), "they are there", 30)

    return listening.listen(near, 0.2, send).frames


@needs_root
def test_listening(tmp_path: pathlib.Path) -> None:
    """Heard is what comes in, as an XDP program would see it: with its VLAN tags, and not what goes out."""
    plain, other = made(packets=2)
    tags = bytes.fromhex("88a800648100006581000066")
    tagged = [plain[:12] + tags[:size] + plain[12:] for size in (0, 4, 8, 12)]
    with network() as pair:
        assert sent_while_listening(pair, tmp_path, *tagged) == tagged
        path = tmp_path / "out.pcap"
        capture.write(str(path), [(other, 0)])
        heard = listening.listen(pair.names[0], 0.2, lambda: replay.replay(str(path), pair.names[0]))
        assert other not in heard.frames and heard.missed == 0
        with pytest.raises(AttachError, match="cannot listen on nosuch0"):
            listening.listen("nosuch0", 0.2)


@needs_root
def test_merged_frames_are_taken_apart() -> None:
    """What somebody sends as one piece, to be cut by the card, is heard as the packets that it stands for."""
    with network() as pair:
        near, far = pair.names
        ip("addr", "add", "10.9.0.1/24", "dev", near)
        with pair.inside(1):
            ip("addr", "add", "10.9.0.2/24", "dev", far)
        payload = bytes(range(200)) * 2 + b"rest"

        def send() -> None:
            with pair.inside(1), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.setsockopt(socket.SOL_UDP, 103, 200)  # UDP_SEGMENT
                udp.sendto(payload, ("10.9.0.1", 54322))

        heard = listening.listen(near, 0.3, send).frames
        packets = [frame for frame in heard if wire.decode(frame, Config())["outcome"] == "pass_port"]
        reports = Config(port=(54322,))
        assert [wire.read_outer(frame, reports) for frame in packets] == [
            (payload[start : start + 200], "10.9.0.2") for start in (0, 200, 400)
        ]


@needs_root
def test_listening_where_no_collector_runs(tmp_path: pathlib.Path) -> None:
    """Without a collector, doctor says what comes in on an interface: exit code 1 if none could read it."""
    with network() as pair:
        near = pair.names[0]
        heard = sent_while_listening(pair, tmp_path, *made(packets=214, port=54322))
        assert doctor.diagnose_frames(heard, 2.0, near, Config()) == [
            Finding(
                "other port", "warn",
                "in 2 s: 214 UDP packets to port 54322, none to 54321; those to 54322 are reports",
                "try `--port 54322`",
            )
        ]  # fmt: skip
        with Command("doctor", near, "--prometheus", "off", "--listen", "4", "--int-dscp", "23") as command:
            sockets = pathlib.Path("/proc/thread-self/net/packet")
            servers.wait(lambda: len(sockets.read_text().splitlines()) > 1, "it listens", 30)
            send_frames(pair, tmp_path, *made(packets=300, profile="onos"))
            assert command.process.wait(60) == 1
            said = " ".join(command.printed().split())
        expected = f"s: {MALFORMED.replace('`', '')} -> try --profile onos"
        assert re.search(rf"bad malformed in 4(\.\d+)? {re.escape(expected)}", said)
        findings = doctor.diagnose(near, Config(prometheus=None), 0.0)
        assert "listening" not in {finding.what for finding in findings}


@needs_root
def test_what_a_running_collector_says(tmp_path: pathlib.Path) -> None:
    """Of a collector on the interface, doctor prints its own findings, exit code 1 if one is bad; of one that is not
    at that address it says so."""
    with network() as pair:
        near = pair.names[0]
        with Collector(near, "--int-dscp", "23") as collector:
            send_frames(pair, tmp_path, *made(packets=214, port=54322), *made(packets=300, profile="onos"))
            collector.wait_packets(300, "hop_ml_mismatch")
            answered = servers.wait(
                lambda: [f for f in json.loads(collector.get("/api/v1/diagnosis")[1]) if f["found"] == MALFORMED],
                "it is in the diagnosis", 30,
            )  # fmt: skip
            assert answered == [
                {"what": "malformed", "state": "bad", "found": MALFORMED, "advice": "try `--profile onos`"}
            ]
            address = collector.url.removeprefix("http://").rstrip("/")
            ended = intcollector("doctor", near, "--prometheus", address)
            printed = " ".join(ended.stdout.split())
            assert ended.returncode == 1
            assert f"{address} is the endpoint of the collector on {near}" in printed
            assert f"bad malformed {MALFORMED.replace('`', '')} -> try --profile onos" in printed
            assert "listening" not in printed
            send_frames(pair, tmp_path, *made(packets=20, dscp=5))
            servers.wait(
                lambda: UNMARKED in [f["found"] for f in json.loads(collector.get("/api/v1/diagnosis")[1])],
                "reports without the mark are in it, too", 30,
            )  # fmt: skip
            ended = intcollector("doctor", "lo", "--prometheus", address, "--listen", "0")
            assert ended.returncode == 1 and f"{address} is in use" in ended.stdout
            with socket.create_server(("127.0.0.1", 0)) as free:
                elsewhere = f"127.0.0.1:{free.getsockname()[1]}"
            ended = intcollector("doctor", near, "--prometheus", elsewhere)
            assert ended.returncode == 0
            assert f"the collector on {near} does not answer at {elsewhere}" in ended.stdout
