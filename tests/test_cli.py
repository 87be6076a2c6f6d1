"""cli.py: the commands as users type them, their exit codes and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest
import urllib3
from pyroute2 import IPRoute

from intcollector import capture, cli, traffic
from intcollector.config import Config
from intcollector.errors import UsageError
from intcollector.lab import Lab
from intcollector.traffic import Traffic

from . import servers
from .collectors import COMMAND, ROOT, Collector, Command, Metrics, frames, intcollector, ip, network, send_frames, xdp
from .frames import frame, numbered
from .needs import needs_root

root = needs_root
COMMANDS = ("run", "relay", "decode", "generate", "replay", "top", "lab", "doctor")

RUN_OPTIONS = {
    "--port", "--xdp-mode", "--int-dscp", "--profile", "--tcp-int-position", "--int-udp-port", "--source-only-words",
    "--event-transport", "--accept-report-length-1", "--reject-int-version-0", "--event-mode",
    "--hop-latency-threshold",
    "--flow-latency-threshold", "--queue-occupancy-threshold", "--tx-utilization-threshold", "--keepalive",
    "--latency-unit", "--max-flows", "--prometheus", "--influxdb", "--influxdb-database", "--influxdb-schema",
    "--timestamps", "--jsonl", "--push-interval", "--sources", "--drop-reasons", "--links", "--int-gre-protocol",
    "--queue-occupancy-bytes", "--tx-utilization-full", "--sampling-ratio", "--postcard-window", "--postcard-timeout",
}  # fmt: skip
"""What scripts outside the project rely on."""

MIX = (
    "--packets", "400", "--flows", "20", "--hops", "5", "--event-rate", "0.2", "--path-changes", "0.1", "--loss", "0.1",
    "--drop-reports", "0.1", "--congestion-reports", "0.1", "--ipv6", "0.3", "--vlan", "0.3",
)  # fmt: skip


@pytest.fixture
def pair() -> Iterator[Lab]:
    """Two namespaces, of which the test is in the near one."""
    with network() as made:
        yield made


@pytest.fixture(autouse=True, scope="module")
def namespace() -> Iterator[None]:
    """All of this happens in a namespace of its own: an `lo` here is nobody's."""
    if os.geteuid() != 0:
        yield
        return
    with network(namespaces=1):
        yield


# --- help, exit codes, errors -----------------------------------------------------------------------------------------


def test_help() -> None:
    """There is help for the whole and for every command, with exit code 0 and nothing on stderr."""
    ended = intcollector("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(re.search(rf"^ +{name} ", ended.stdout, re.MULTILINE) for name in COMMANDS)
    assert "Exit codes: 0 done, 1 failed while running, 2 wrong usage" in ended.stdout
    for name in COMMANDS:
        ended = intcollector(name, "--help")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"usage: intcollector {name} ")


def test_help_of_run_has_every_option() -> None:
    """`run --help` has every option that the interface promises, and every choice and default it names."""
    said = intcollector("run", "--help").stdout
    listed = set(re.findall(r"^ +(--[a-z0-9-]+)", said, re.MULTILINE))
    assert listed >= RUN_OPTIONS
    plain = " ".join(said.split())
    for text in (
        "--xdp-mode {auto,native,generic}", "--profile {spec,l2port4,geant,onos,intcollector}", "--event-transport",
        "--tcp-int-position {auto,before-options,after-options}", "--event-mode {threshold,interval}",
        "--timestamps {host,int}", "--influxdb-schema {tags,intcollector}", "--latency-unit {ns,us,ms,2^-32s}",
        "--int-dscp V[/M]", "--sources FILE", "--drop-reasons FILE", "--links FILE",
        "(default: 54321)", "(default: 33122)", "(default: 127.0.0.1:8000)", "(default: 100000)", "(default: 50)",
    ):  # fmt: skip
        assert text in plain, text


def test_defaults_are_those_promised() -> None:
    """Without options, a collector is set as the interface says."""
    config = Config()
    assert (config.port, config.xdp_mode, config.int_dscp, config.profile) == ((54321,), "auto", None, "spec")
    assert (config.tcp_int_position, config.int_udp_port, config.source_only_words) == ("auto", 33122, ())
    assert (config.event_transport, config.event_mode, config.keepalive) == ("auto", "threshold", 1.0)
    assert {config.hop_latency_threshold, config.flow_latency_threshold, config.queue_occupancy_threshold} == {50}
    assert (config.tx_utilization_threshold, config.latency_unit, config.max_flows) == (50, "ns", 100_000)
    assert (config.prometheus, config.influxdb, config.influxdb_schema) == (("127.0.0.1", 8000), None, "tags")
    assert (config.timestamps, config.jsonl, config.push_interval) == ("host", None, 1.0)
    assert (config.sources, config.links, config.drop_reasons, config.int_gre_protocol) == ((), (), None, 0)
    assert (config.queue_occupancy_bytes, config.tx_utilization_full, config.sampling_ratio) == (0, 0, 1)
    assert (config.postcard_window, config.postcard_timeout) == (0.001, 5.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("run",), "the following arguments are required: IFACE"),
        (("run", "lo", "--port", "0"), "argument --port: 0 is not between 1 and 65535"),
        (("run", "lo", "--port", "many"), "argument --port: 'many' is not a whole number"),
        (("run", "lo", "--int-dscp", "1/2"), "argument --int-dscp: no DSCP can match '1/2'"),
        (("run", "lo", "--keepalive", "-1"), "argument --keepalive"),
        (("run", "lo", "--xdp-mode", "fast"), "argument --xdp-mode: invalid choice: 'fast'"),
        (("run", "lo", "--nosuch"), "unrecognized arguments: --nosuch"),
        (("run", "lo", "--prom", "off"), "unrecognized arguments: --prom off"),
        (("run", "lo", "--influxdb", "http://a:b@c"), "must not hold a password"),
        (("run", "lo", *(f"--port={n}" for n in range(1, 18))), "17 ports given, at most 16 are possible"),
        (("run", "lo", "--config", "/nonexistent/options"), "cannot read the options in /nonexistent/options"),
        (("run", "lo", "--sources", "/nonexistent"), "cannot read /nonexistent (No such file or directory): give a"),
        (("run", "lo", "--links", "/"), "cannot read / (Is a directory): give a file that is there and readable"),
        (("run", "lo", "--drop-reasons", "README.md"), "README.md is not TOML: "),
        (("decode", "x.pcap", "--sources", "/nonexistent"), "cannot read /nonexistent (No such file or directory)"),
        (("run", "lo", "--int-gre-protocol", "0x86dd"), "argument --int-gre-protocol: 0x86dd means something else"),
        (("run", "lo", "--postcard-window", "5"), "argument --postcard-window: 5 is not a time between 0 and 4 sec"),
        (("run", "lo", "--sampling-ratio", "0"), "argument --sampling-ratio: 0 is not between 1 and"),
        (("run", "lo", "--latency-unit", "s"), "argument --latency-unit: invalid choice: 's'"),
        (("decode", "x.pcap", "--engine", "magic"), "argument --engine: invalid choice: 'magic'"),
        (("generate",), "one of the arguments -o/--output -i/--interface is required"),
        (("generate", "-o", "x", "-i", "y"), "not allowed with argument"),
        (("generate", "-o", "/dev/null", "--sources", "5", "--flows", "2"), "5 sources need as many flows"),
        (("generate", "-o", "/dev/null", "--seconds", "2"), "--seconds is for an interface; give --packets"),
        (("generate", "-o", "/dev/null", "--loss", "2"), "argument --loss: 2 is not between 0 and 1"),
        (("replay", "x.pcap"), "the following arguments are required: IFACE"),
        (("replay", "x.pcap", "lo", "--loop", "0"), "argument --loop: 0 is not between 1 and"),
        (("lab", "sideways"), "invalid choice: 'sideways'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    """Wrong usage ends with exit code 2, says what is wrong with what, and shows no traceback."""
    ended = intcollector(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decode", "/nonexistent.pcap"), "cannot read /nonexistent.pcap"),
        (("decode", "/etc/passwd"), "/etc/passwd"),
        (("generate", "-o", "/nonexistent/x.pcap"), "cannot write /nonexistent/x.pcap"),
        pytest.param(("replay", "/nonexistent.pcap", "lo"), "cannot read /nonexistent.pcap", marks=root),
        pytest.param(("generate", "-i", "nosuch0"), "there is no interface nosuch0", marks=root),
        pytest.param(("run", "nosuch0", "--prometheus", "off"), "there is no interface nosuch0", marks=root),
        pytest.param(("run", "lo", "--jsonl", "/nonexistent/x"), "cannot write events to /nonexistent/x", marks=root),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_failures(arguments: tuple[str, ...], said: str) -> None:
    """What fails while running ends with exit code 1 and one line on stderr; with -v it says where it came from."""
    ended = intcollector(*arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("intcollector: ") and said in ended.stderr
    assert ended.stderr.count("\n") == 1
    wordy = intcollector(arguments[0], "-v", *arguments[1:])
    assert wordy.returncode == 1
    assert said in wordy.stderr and "Traceback" in wordy.stderr


@root
def test_port_in_use(pair: Lab) -> None:
    """An endpoint's address that is taken is an error with what to try; the interface is clean after it."""
    with Collector(pair.names[0]) as first:
        address = first.url.removeprefix("http://")
        ended = intcollector("run", "lo", "--xdp-mode", "generic", "--prometheus", address)
        assert ended.returncode == 1
        assert ended.stderr == (
            f"intcollector: prometheus cannot listen on {address} (EADDRINUSE): something else listens there: stop it, "
            "or choose another port with --prometheus\n"
        )
        assert xdp("lo") is None
        assert first.get("/readyz") == (200, "ready\n")


@root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(number: int) -> None:
    """SIGINT and SIGTERM end a collector with exit code 0 and without a word, once it is ready and before."""
    with Collector("lo", "--xdp-mode", "generic") as running:
        assert "ready\n" in running.said()
        before = running.said()
        assert running.end(number) == 0
        assert running.said() == before
    assert xdp("lo") is None
    with Command("run", "lo", "--prometheus", "off", "--xdp-mode", "generic") as early:
        early.wait_until(lambda: catches_sigterm(early.process.pid), "it catches signals")
        assert early.end(number) == 0
        assert "Traceback" not in early.said()
    assert xdp("lo") is None


def catches_sigterm(process: int) -> bool:
    """Has the process a handler for SIGTERM? It is set right after that for SIGINT."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    mask = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(mask and int(mask[1], 16) >> signal.SIGTERM - 1 & 1)


@root
def test_hangup_before_it_is_ready() -> None:
    """A SIGHUP while the program is being loaded does not end the collector."""
    with Command("run", "lo", "--prometheus", "off", "--xdp-mode", "generic") as running:
        running.wait_until(lambda: catches_sigterm(running.process.pid), "it catches signals")
        running.process.send_signal(signal.SIGHUP)
        running.wait_said("ready\n")
        assert running.end() == 0


@root
def test_prometheus_off() -> None:
    """--prometheus off serves nothing and says nothing of metrics."""
    with Collector("lo", "--xdp-mode", "generic", "--prometheus", "off") as running:
        assert running.url == ""
        assert "metrics" not in running.said()
        sockets = pathlib.Path(f"/proc/{running.process.pid}/net/tcp").read_text().splitlines()[1:]
        assert sockets == []


# --- options in a file ------------------------------------------------------------------------------------------------


def test_file_of_options(tmp_path: pathlib.Path) -> None:
    """A file holds options by name, switches by name alone, and comments; it says which line is wrong."""
    path = tmp_path / "options"
    path.write_text("# all of it\n\nport = 6000 # and\nport=5900\n  force\nint-dscp = 23/63\n")
    assert cli.read_options(str(path)) == ["--port=6000", "--port=5900", "--force", "--int-dscp=23/63"]
    path.write_text("port = 6000\n= 7\n")
    with pytest.raises(UsageError, match=r"options, line 2: no name in front of the equals sign"):
        cli.read_options(str(path))
    path.write_bytes(b"port = \xff\n")
    with pytest.raises(UsageError, match="cannot read the options in"):
        cli.read_options(str(path))


def test_command_line_wins(tmp_path: pathlib.Path) -> None:
    """What the command line says replaces what the file says, all of it; what it leaves out is the file's."""
    path = tmp_path / "options"
    path.write_text("keepalive = 7\nhop-latency-threshold = 9\nprometheus = off\nforce\nport = 1\nport = 2\n")

    def given(*more: str) -> Config:
        argv = ["run", "lo", "--keepalive", "3", "--config", str(path), *more]
        return cli.configuration(cli._parser().parse_args(argv), argv)

    assert given().port == (1, 2)
    config = given("--port", "3")
    assert config.port == (3,)
    assert (config.keepalive, config.hop_latency_threshold, config.prometheus, config.force) == (3.0, 9, None, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosuch = 1\n", "unrecognized arguments: --nosuch=1"),
        ("port = many\n", "'many' is not a whole number"),
        ("config = x\n", "config in "),
        ("verbose\n", "verbose in "),
    ],
)
def test_wrong_file_of_options(tmp_path: pathlib.Path, text: str, said: str) -> None:
    """A file with a wrong option is wrong usage, which names the file and the option."""
    path = tmp_path / "options"
    path.write_text(text)
    ended = intcollector("run", "lo", "--config", str(path))
    assert ended.returncode == 2
    assert said in ended.stderr and str(path) in ended.stderr
    assert "Traceback" not in ended.stderr


# --- files that options name ------------------------------------------------------------------------------------------

GEANT = '["192.0.2.0/24"]\nprofile = "geant"\n'
SPEC = '["192.0.2.0/24"]\nprofile = "spec"\n'
MARK = ("--int-dscp", "23/63")
HOP = {"switch_id": 7, "hop_latency": 3000, "ingress_timestamp": 5, "egress_timestamp": 6}


def test_files_of_a_command_line(tmp_path: pathlib.Path) -> None:
    """A file that the command line names is read, not one that the file of options names for the same."""
    options, ours, theirs = (tmp_path / name for name in ("options", "ours", "theirs"))
    options.write_text(f"sources = {theirs}\nlinks = {tmp_path / 'links'}\n")
    ours.write_text(GEANT)
    (tmp_path / "links").write_text("[[link]]\nswitch = 1\negress-port = 2\nto = 3\n")
    argv = ["run", "lo", "--config", str(options), "--sources", str(ours)]
    config = cli.configuration(cli._parser().parse_args(argv), argv)
    assert config.of_source("192.0.2.1").profile == "geant"
    assert config.links == ((1, 2, 3),)
    with pytest.raises(UsageError, match=f"cannot read {theirs}"):
        cli.configuration(cli._parser().parse_args(argv[:4]), argv)


@root
def test_decode_by_source(tmp_path: pathlib.Path) -> None:
    """Both engines read a report as the file of sources says of its source, and other sources' as the command line
    says."""
    geant = frame(Config(profile="geant"), HOP, dscp=23)
    other = frame(Config(profile="geant"), HOP, dscp=23, source="198.51.100.1")
    capture.write(str(tmp_path / "x.pcap"), [(geant, 0), (other, 0)])
    (tmp_path / "sources").write_text(GEANT)
    for engine in ("python", "kernel"):
        arguments = ("decode", str(tmp_path / "x.pcap"), *MARK, "--engine", engine)
        without, by_source = (
            [json.loads(line)["outcome"] for line in intcollector(*arguments, *more).stdout.splitlines()]
            for more in ((), ("--sources", str(tmp_path / "sources")))
        )
        assert without == ["hop_ml_mismatch"] * 2
        assert by_source == ["ok", "hop_ml_mismatch"]


@root
def test_sources_change_while_it_runs(pair: Lab, tmp_path: pathlib.Path) -> None:
    """A running collector reads the next packets by what the file of sources says now, whether it was written to,
    replaced or broken, under the same program; of a broken one it says so once and goes on as before."""
    near, path = pair.names[0], tmp_path / "sources"
    report = frame(Config(profile="geant"), HOP, dscp=23)
    sent = 0

    def outcomes(running: Collector) -> dict[str, int]:
        nonlocal sent
        sent += 1
        send_frames(pair, tmp_path, report)
        return running.wait_packets(sent).outcomes()

    path.write_text(SPEC)
    with Collector(near, *MARK, "--sources", str(path)) as running:
        program = xdp(near)
        assert outcomes(running) == {"hop_ml_mismatch": 1}

        path.write_text(GEANT)
        running.wait_said(f"intcollector: {path} read again: 1 entry, 1 changed\n")
        assert outcomes(running) == {"hop_ml_mismatch": 1, "ok": 1}

        path.write_text('["192.0.2.0/24"]\nprofile = "gaent"\n')
        said = f'intcollector: {path}: ["192.0.2.0/24"]: profile: "gaent" is not possible: choose from spec, '
        running.wait_said(said)
        assert outcomes(running) == {"hop_ml_mismatch": 1, "ok": 2}

        path.unlink()
        running.wait_said(f"intcollector: cannot read {path} (No such file or directory): ")
        assert outcomes(running) == {"hop_ml_mismatch": 1, "ok": 3}

        (tmp_path / "new").write_text(SPEC + '["2001:db8::1"]\n')
        os.replace(tmp_path / "new", path)
        running.wait_said(f"intcollector: {path} read again: 2 entries, 1 new, 1 changed\n")
        assert outcomes(running) == {"hop_ml_mismatch": 2, "ok": 3}

        path.write_text(GEANT)
        os.kill(running.process.pid, signal.SIGHUP)
        running.wait_said(f"intcollector: {path} read again: 1 entry, 1 changed, 1 gone\n")
        assert outcomes(running) == {"hop_ml_mismatch": 2, "ok": 4}

        assert xdp(near) == program
        assert running.said().count("what was read before stays in force") == 2
        assert running.said().count(said) == 1
        assert running.end() == 0


@root
def test_no_report_is_lost_by_a_change(pair: Lab, tmp_path: pathlib.Path) -> None:
    """While the file of sources changes again and again under traffic, every report is read, and none counts as
    lost; in the end the last content is in force."""
    path = tmp_path / "sources"
    units = ("ns", "us", "ms", "2^-32s")
    path.write_text(f'["192.0.2.1"]\nlatency-unit = "{units[0]}"\n')
    reports = numbered(frame(Config(), {"switch_id": 7, "hop_latency": 3000}), range(1, 24_001))
    with Collector(pair.names[0], "--sources", str(path)) as running:
        sender = threading.Thread(
            target=send_frames, args=(pair, tmp_path, *reports), kwargs={"rate": 6000}, daemon=True
        )
        sender.start()
        for change in range(1, 4):
            (tmp_path / "new").write_text(f'["192.0.2.1"]\nlatency-unit = "{units[change % 4]}"\n')
            os.replace(tmp_path / "new", path)
            running.wait_said("read again: 1 entry, 1 changed\n", change)
        assert sender.is_alive()  # the last change, too, came under traffic
        sender.join()
        metrics = running.wait_packets(len(reports))
        assert metrics.outcomes() == {"ok": len(reports)}
        for name in ("reports_lost", "reports_reordered", "reports_duplicated", "events_lost"):
            assert metrics.sum(f"int_{name}_total") == 0, name
        assert metrics.value("int_flow_latency_seconds") == pytest.approx(3000 / 2**32)
        assert running.end() == 0


@root
def test_drop_reasons_change_while_it_runs(pair: Lab, tmp_path: pathlib.Path) -> None:
    """Drop reasons have the names built in, or those of the file, which a running collector takes up."""
    path = tmp_path / "reasons"
    report = frame(Config(), local={"drop_queue_id": 1, "drop_reason": 80}, dropped=True)
    path.write_text('80 = "keep_out"\n')
    for arguments, name in (((), "acl_deny"), (("--drop-reasons", str(path)), "keep_out")):
        with Collector(pair.names[0], *arguments) as running:
            send_frames(pair, tmp_path, report)
            metrics = running.wait_packets(1, "ok")
            assert metrics.by("int_dropped_packets_total", "switch_id", "reason") == {("1", name): 1}
            if arguments:
                path.write_text('80 = "no_entry"\n')
                running.wait_said(f"intcollector: {path} read again: 1 entry, 1 changed\n")
                assert running.metrics().by("int_dropped_packets_total", "switch_id", "reason") == {
                    ("1", "no_entry"): 1
                }
            assert running.end() == 0


@root
def test_other_files_while_it_runs(tmp_path: pathlib.Path) -> None:
    """SIGHUP reads the files that options name again, and takes another file that the file of options names, unless it
    is wrong; that one is looked at from then on, until the option is gone."""
    options, first, second = (tmp_path / name for name in ("options", "first", "second"))
    first.write_text(GEANT)
    second.write_text(GEANT)

    def hang_up(line: str) -> None:
        options.write_text(line)
        os.kill(running.process.pid, signal.SIGHUP)

    options.write_text(f"sources = {first}\n")
    with Collector("lo", "--xdp-mode", "generic", "--config", str(options)) as running:
        hang_up(f"sources = {first}\n")
        running.wait_said(f"intcollector: {first} read again: 1 entry, nothing changed\n")
        running.wait_said("intcollector: options read again, 0 changed\n")
        hang_up("sources = /nonexistent\n")
        running.wait_said("intcollector: nothing changed: cannot read /nonexistent (No such file or directory): ")
        hang_up(f"sources = {second}\n")
        running.wait_said("intcollector: options read again, 1 changed\n")
        second.write_text(SPEC)
        running.wait_said(f"intcollector: {second} read again: 1 entry, 1 changed\n")
        hang_up("keepalive = 1\n")
        running.wait_said("intcollector: options read again, 1 changed\n", 2)
        before = running.said().count(str(second))
        second.write_text(GEANT)
        hang_up("keepalive = 1\n")
        running.wait_said("intcollector: options read again, 0 changed\n", 2)
        assert running.said().count(str(second)) == before
        assert running.end() == 0


# --- generate, decode, replay -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A capture of everything that generate makes."""
    path = tmp_path_factory.mktemp("mix") / "mix.pcap"
    ended = intcollector("generate", "-o", str(path), *MIX)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith(f"wrote 400 reports to {path} in ")
    return path


def test_generate_is_its_seed(mix: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The same options make the same file byte for byte, another seed makes another."""
    again, other = tmp_path / "again.pcap", tmp_path / "other.pcap"
    for path, more in ((again, ()), (other, ("--seed", "2"))):
        assert intcollector("generate", "-o", str(path), *MIX, *more).returncode == 0
    assert again.read_bytes() == mix.read_bytes() != other.read_bytes()
    assert len(list(capture.read(str(other)))) == 400


@root
def test_both_engines_print_the_same(mix: pathlib.Path) -> None:
    """decode prints one JSON line a packet, the same with both engines, and what generate meant."""
    python = intcollector("decode", str(mix), "--int-dscp", "23/63")
    kernel = intcollector("decode", str(mix), "--int-dscp", "23/63", "--engine", "kernel")
    assert (python.returncode, python.stderr) == (kernel.returncode, kernel.stderr) == (0, "")
    assert python.stdout == kernel.stdout
    lines = [json.loads(line) for line in python.stdout.splitlines()]
    assert [line["packet"] for line in lines] == list(range(400))
    assert {line["outcome"] for line in lines} == {"ok"}
    assert all(list(line) == ["packet", "outcome", "reports"] for line in lines)
    reports = [line["reports"][0] for line in lines]
    truth = traffic.truth(
        Traffic(packets=400, flows=20, hops=5, event_rate=0.2, path_changes=0.1, drop_reports=0.1,
                congestion_reports=0.1, loss=0.1, ipv6=0.3, vlan=0.3)
    )  # fmt: skip
    assert sum(report["dropped"] for report in reports) == truth.dropped > 0
    assert {len(report["int"]["hops"]) for report in reports if report["int"]} == {5}


def test_decode_takes_options(mix: pathlib.Path) -> None:
    """decode is set like run: with another port nothing in the capture is a report."""
    ended = intcollector("decode", str(mix), "--port", "6000")
    assert {json.loads(line)["outcome"] for line in ended.stdout.splitlines()} == {"pass_port"}


def test_reader_that_goes_away(mix: pathlib.Path) -> None:
    """Output that nobody reads any more ends decode in silence with exit code 0."""
    decode = subprocess.Popen(
        [*COMMAND, "decode", str(mix)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert decode.stdout and decode.stderr
    assert decode.stdout.readline().startswith('{"packet": 0')
    decode.stdout.close()
    try:
        assert decode.stderr.read() == ""
        assert decode.wait(60) == 0
    finally:
        decode.stderr.close()
        decode.kill()
        decode.wait()


SENT = re.compile(r"sent (\d+) packets in (\d+\.\d+) s, (\d+) packets/s\n")


def received(pair: Lab, count: int) -> None:
    """Returns when so many more came in at the near end."""
    servers.wait(lambda: frames(pair.names[0])[0] >= count, f"{count} frames came in")
    assert frames(pair.names[0])[0] == count


@root
def test_replay(pair: Lab, mix: pathlib.Path) -> None:
    """replay sends every packet as often as asked, at the rate asked, and prints how many, seconds and rate."""
    far = pair.names[1]
    for arguments, total in ((("--loop", "3"), 1200), (("--rate", "2000"), 1600)):
        ended = intcollector("replay", str(mix), far, *arguments, namespace=pair.namespaces[1])
        assert (ended.returncode, ended.stderr) == (0, "")
        said = SENT.fullmatch(ended.stdout)
        assert said, ended.stdout
        received(pair, total)
        sent, seconds, rate = int(said[1]), float(said[2]), int(said[3])
        assert sent == (1200 if total == 1200 else 400)
        assert abs(rate * seconds - sent) <= rate * 0.001 + seconds  # as printed, rounded
    assert seconds > 0.19  # 400 at 2,000 a second: it may be slower, never faster


@root
def test_replay_of_what_cannot_be_sent(pair: Lab, tmp_path: pathlib.Path) -> None:
    """Frames without a whole Ethernet header are named as not sent, with exit code 1; the others are sent."""
    path = str(tmp_path / "short.pcap")
    capture.write(path, [(bytes(13), 0), (bytes(60), 0)])
    ended = intcollector("replay", path, pair.names[1], namespace=pair.namespaces[1])
    assert ended.returncode == 1
    assert ended.stdout.startswith("sent 1 packets in ")
    assert ended.stderr == "intcollector: 1 packets were not taken by the interface\n"
    received(pair, 1)


@root
def test_generate_onto_an_interface(pair: Lab) -> None:
    """generate -i sends as many as asked, or for as long as asked, and prints as replay does."""
    total = 0
    for arguments in (("--packets", "5000"), ("--seconds", "0.3", "--rate", "1000")):
        ended = intcollector("generate", "-i", pair.names[1], *arguments, namespace=pair.namespaces[1])
        # frames that the receiver is too slow for are named
        assert ended.returncode == ("not taken by the interface" in ended.stderr), ended.stderr
        said = SENT.fullmatch(ended.stdout)
        assert said, ended.stdout
        total += int(said[1])
        received(pair, total)
    assert 0 < total <= 5000 + 301


# --- lab, doctor ------------------------------------------------------------------------------------------------------


@root
def test_lab_up_and_down() -> None:
    """lab up makes the pair, under other names if asked, and says so; lab down removes it; both twice."""
    for names in ((), ("--names", "east", "west")):
        first, second = names[1:] or ("veth_0", "veth_1")
        for _ in range(2):
            ended = intcollector("lab", "up", *names)
            assert (ended.returncode, ended.stderr) == (0, "")
            assert ended.stdout == f"{first} and {second} are up: what is sent on one comes in at the other\n"
            assert frames(first) == frames(second) == (0, 0)
        for _ in range(2):
            ended = intcollector("lab", "down", *names)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
            with pytest.raises(AssertionError, match="is not there"):
                frames(first)


@root
def test_lab_leaves_others_alone() -> None:
    """A pair that is not the lab's is an error, and stays."""
    ip("link", "add", "veth_0", "type", "veth", "peer", "name", "veth_1")
    try:
        for action in ("up", "down", "demo"):
            ended = intcollector("lab", action)
            assert ended.returncode == 1
            assert "is not the lab's: choose other names" in ended.stderr
        assert frames("veth_0")
    finally:
        ip("link", "delete", "veth_0")


HEAD = re.compile(r"reports (\d+) \(\d+/s\)  malformed 0  lost \d+  dropped packets \d+  events \d+ .*  flows 24")
FLOW = re.compile(r"  [\da-f.:]+ port \d+ to [\da-f.:]+ port \d+: [\d.]+ us by switches \d+ > \d+ > \d+ > \d+")


@root
def test_lab_demo() -> None:
    """lab demo shows reports, flows, paths and the page's address, and serves metrics, until Ctrl-C; then it ends with
    exit code 0, and its generator and its pair are gone."""
    with Command("lab", "demo") as demo:
        demo.wait_said("ready\n")
        assert "veth_0: attached in native mode\nmetrics: http://127.0.0.1:8000/metrics\n" in demo.said()
        demo.wait_until(lambda: len(HEAD.findall(demo.printed())) > 1, "it shows all flows, twice")
        assert metrics_on(8000).value("int_flows") == 24
        assert demo.end(signal.SIGINT) == 0
        assert "Traceback" not in demo.said() and "error" not in demo.said()
        lines = demo.printed().splitlines()
        counts = [int(head[1]) for line in lines if (head := HEAD.fullmatch(line))]
        assert counts == sorted(counts) and counts[-1] > counts[0] > 0
        assert lines.count("  all of it: http://127.0.0.1:8000/") == len(counts)
        flows = [line for line in lines if not line.startswith(("reports ", "  all of it: "))]
        assert len(flows) >= 10 and all(FLOW.fullmatch(line) for line in flows), flows
    with pytest.raises(AssertionError, match="is not there"):
        frames("veth_0")
    assert not others_here()


@root
def test_lab_demo_for_some_seconds() -> None:
    """A demo for so many seconds ends by itself; a port 8000 in use is no obstacle, a port that was asked for is."""
    with Collector("lo", "--xdp-mode", "generic", "--prometheus", "127.0.0.1:8000"):
        ended = intcollector("lab", "demo", "--seconds", "0.5")
        assert (ended.returncode, ended.stdout.count("reports ")) == (0, 1), ended.stderr
        assert "intcollector: port 8000 is in use: the page is on another one\n" in ended.stderr
        port = re.search(r"metrics: http://127.0.0.1:(\d+)/metrics", ended.stderr)
        assert port and port[1] != "8000"
        ended = intcollector("lab", "demo", "--seconds", "0.5", "--prometheus", "8000")
        assert ended.returncode == 1
        assert "prometheus cannot listen on 127.0.0.1:8000 (EADDRINUSE)" in ended.stderr
    with pytest.raises(AssertionError, match="is not there"):
        frames("veth_0")
    assert not others_here()


@root
def test_lab_demo_on_a_pair_that_is_there() -> None:
    """A pair that `lab up` made is what the demo uses, and stays when the demo is over."""
    assert intcollector("lab", "up").returncode == 0
    try:
        with IPRoute() as route:
            before = route.link_lookup(ifname="veth_0")
            ended = intcollector("lab", "demo", "--seconds", "0.5", "--prometheus", "off")
            assert ended.returncode == 0, ended.stderr
            assert route.link_lookup(ifname="veth_0") == before
        assert xdp("veth_0") is None
    finally:
        intcollector("lab", "down")


def metrics_on(port: int) -> Metrics:
    """A scrape of a port of this namespace."""
    with urllib3.PoolManager(retries=False) as http:
        return Metrics(http.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=10.0).data.decode())


def others_here() -> list[bytes]:
    """Command lines of the processes in this namespace, but for this one."""
    mine = os.readlink("/proc/thread-self/ns/net")
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or not ours
            if os.readlink(process / "ns/net") == mine and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_bytes())
    return found


@root
def test_doctor() -> None:
    """doctor looks at the machine and an interface, exit code 0; of one that is not there it says so, exit code 1."""
    ended = intcollector("doctor", "lo")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "kernel" in ended.stdout and "lo" in ended.stdout
    ended = intcollector("doctor", "nosuch0")
    assert ended.returncode == 1
    assert "nosuch0" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_version() -> None:
    """--version names the program and a version."""
    ended = intcollector("--version")
    assert ended.returncode == 0
    assert re.fullmatch(r"intcollector \d+\.\d+\.\d+\n", ended.stdout)


def test_a_collector_begins_without_the_slow_libraries() -> None:
    """What `run` imports before it compiles the kernel program is neither a library that can be imported meanwhile nor
    one that only another command needs."""
    script = (
        "import sys; from intcollector import cli; cli._parser('run').parse_args(['run', 'eth0']); "
        "import intcollector.collector; print(*sys.modules)"
    )
    said = subprocess.run([COMMAND[0], "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    slow = {"scapy", "pyroute2", "prometheus_client", "urllib3", "intcollector.traffic", "intcollector.series"}
    assert {"numpy", "intcollector.datapath"} <= set(said.stdout.split())
    assert not slow & set(said.stdout.split())
