"""Arguments -> Config -> run: the only file that prints or exits."""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import dataclasses
import gc
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from .config import Config, content_of, interval, number, path_of, seconds
from .errors import IntCollectorError, UsageError

log = logging.getLogger("intcollector")


# --- options out of dataclasses ---------------------------------------------------------------------------------------


def flag(field: dataclasses.Field[Any]) -> str:
    """The option of a field: `queue_occupancy_threshold` is `--queue-occupancy-threshold`."""
    return "--" + field.name.replace("_", "-")


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser whose UsageError argparse can show."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.metadata.get("const") or value is None or value == ():
        return ""
    if isinstance(value, tuple):
        value = ":".join(map(str, value)) if field.name == "prometheus" else " ".join(map(str, value))
    return f" (default: {value:g})" if isinstance(value, float) else f" (default: {value})"


def add_options(parser: argparse.ArgumentParser, kind: type, keep: Callable[[dataclasses.Field[Any]], bool]) -> None:
    """A flag for every field of a dataclass that is to be kept; only those given are in the result."""
    for field in dataclasses.fields(kind):
        data = field.metadata
        if not keep(field):
            continue
        named: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        named["help"] = data["help"] + _default(field).replace("%", "%%")
        if data.get("const"):
            named["action"] = "store_true"
        else:
            named["type"] = _argument(data["parse"])
            for name in ("choices", "metavar"):
                if name in data:
                    named[name] = data[name]
            if "metavar" not in data and "choices" not in data and data["parse"] is not str:
                named["metavar"] = "N"
            if data.get("repeat"):
                named["action"] = "append"
        parser.add_argument(flag(field), **named)


def options(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The fields of a dataclass that were given."""
    given = {}
    for field in dataclasses.fields(kind):
        if hasattr(arguments, field.name):
            value = getattr(arguments, field.name)
            given[field.name] = tuple(value) if field.metadata.get("repeat") else value
    return given


def config_of(given: dict[str, Any], in_force: Config | None = None) -> Config:
    """The Config of options that were given; the files that they name are read, but those that in_force holds."""
    for field in dataclasses.fields(Config):
        read, path = field.metadata.get("read"), given.get(field.name)
        if read and path is not None:
            before = getattr(in_force, field.name, None)
            given[field.name] = before if path_of(before) == path else read(content_of(path), path)
    return Config(**given)


def read_options(path: str) -> list[str]:
    """A file of options as arguments: `name = value` a line, the name as on the command line without its hyphens in
    front; a name alone is a switch; # begins a comment. Errors: UsageError, with the line."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the options in {path} ({error})") from None
    arguments = []
    for at, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("#")[0].partition("="))
        if not name:
            if equals:
                raise UsageError(f"{path}, line {at}: no name in front of the equals sign")
            continue
        arguments.append(f"--{name}={value}" if equals else f"--{name}")
    return arguments


# --- the commands -----------------------------------------------------------------------------------------------------


class _Version(argparse.Action):
    """--version: looked up when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"intcollector {_version()}")
        parser.exit()


def _parser(command_given: str | None = None) -> argparse.ArgumentParser:
    """command_given: the first argument. The options of a command that come from a module of its own are there only if
    it is that one, so that no other waits for the module."""
    formatter = lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100)  # noqa: E731
    parser = argparse.ArgumentParser(
        prog="intcollector",
        description="Collects In-band Network Telemetry reports in the kernel and exports what they say.",
        epilog="Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration. Environment: "
        "INTCOLLECTOR_CACHE, the folder where compiled kernel programs are kept (default: /var/cache/intcollector; "
        "empty: nowhere).",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", formatter_class=formatter, allow_abbrev=False
        )
        sub.add_argument("-v", "--verbose", action="store_true", help="say more; show where an error came from")
        sub.set_defaults(function=function)
        return sub

    sub = command("run", "attach to interfaces, collect and export, until SIGINT or SIGTERM", run)
    sub.add_argument("interfaces", nargs="+", metavar="IFACE")
    sub.add_argument(
        "--config", metavar="FILE", help="options from a file; SIGHUP reads it again (see docs/options.md)"
    )
    add_options(sub, Config, lambda field: True)

    sub = command(
        "relay",
        "read events that `run --kafka` sent, as one of a consumer group, and export them; no root needed",
        relay,
    )
    sub.add_argument(
        "--kafka-group",
        required=True,
        metavar="NAME",
        help="consumer group: its relays share the events",
    )
    add_options(sub, Config, lambda field: bool(field.metadata.get("relay")))

    sub = command("decode", "print what the packets of a capture are, one JSON line each", decode)
    sub.add_argument("capture", metavar="PCAP")
    sub.add_argument(
        "--engine", choices=("python", "kernel"), default="python",
        help="python: the reference decoder, no root needed; kernel: the XDP program itself (default: python)",
    )  # fmt: skip
    add_options(sub, Config, lambda field: bool(field.metadata.get("decode")))

    sub = command("generate", "make reports to test with, into a file or onto an interface", generate)
    where = sub.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--output", metavar="PCAP", help="the capture file to write")
    where.add_argument("-i", "--interface", metavar="IFACE", help="sends as fast as possible, or --rate")
    sub.add_argument("--seconds", type=_argument(interval), metavar="S", help="send on the interface for so long")
    if command_given == "generate":
        from .traffic import Traffic

        add_options(sub, Traffic, lambda field: True)

    sub = command("replay", "send the packets of a capture; prints how many, seconds and rate", replay)
    sub.add_argument("capture", metavar="PCAP")
    sub.add_argument("interface", metavar="IFACE")
    sub.add_argument(
        "--rate",
        type=_argument(number(1, 10**9)),
        metavar="PPS",
        help="packets a second (default: as fast as possible)",
    )
    sub.add_argument("--loop", type=_argument(number(1, 10**9)), default=1, metavar="N", help="times (default: 1)")

    sub = command("top", "show what a running collector sees, as it changes; keys: see docs/top.md, or press ?", top)
    sub.add_argument(
        "url", nargs="?", default="127.0.0.1:8000", metavar="URL",
        help="of the collector: HOST:PORT or http://HOST:PORT, as its --prometheus says (default: 127.0.0.1:8000)",
    )  # fmt: skip
    sub.add_argument("--once", action="store_true", help="print it once, as text, and end")
    sub.add_argument("--json", action="store_true", help="with --once: everything, as JSON")
    sub.add_argument(
        "--view", metavar="NAME",
        help="the table: flows, switches, links, queues, ports, sources, drops, outcomes, exporters or events "
        "(default: flows; with --once: all)",
    )  # fmt: skip
    sub.add_argument("--sort", metavar="COLUMN", help="the column to sort by; a wrong one lists those there are")
    sub.add_argument("--reverse", action="store_true", help="numbers from the smallest, words from Z")
    sub.add_argument(
        "--limit", type=_argument(number(1, 10**6)), metavar="N",
        help="rows of a table (default: 100; with --once: 10 of each table, or all of the one that --view names)",
    )  # fmt: skip

    sub = command("lab", "a pair of virtual interfaces to try things on", lab)
    sub.add_argument(
        "action", choices=("up", "down", "demo"),
        help="up, down: make and remove the pair; demo: the pair, a collector and its page, generated traffic, until "
        "Ctrl-C",
    )  # fmt: skip
    sub.add_argument(
        "--names", nargs=2, default=("veth_0", "veth_1"), metavar="NAME",
        help="of the two ends (default: veth_0 veth_1)",
    )  # fmt: skip
    sub.add_argument("--seconds", type=_argument(interval), metavar="S", help="demo: end by itself after so long")
    sub.add_argument(
        "--rate", type=_argument(number(1, 10**7)), default=2000, metavar="PPS",
        help="demo: reports a second (default: 2000)",
    )  # fmt: skip
    add_options(sub, Config, lambda field: field.name in ("prometheus", "influxdb", "influxdb_database", "jsonl"))

    sub = command("doctor", "look at this machine: what is wrong for a collector, and what to do", doctor)
    sub.add_argument("interface", nargs="?", metavar="IFACE")
    sub.add_argument("--load", action="store_true", help="also compile, verify and load the kernel program")
    sub.add_argument(
        "--listen", type=_argument(seconds), metavar="S",
        help="if no collector runs on IFACE, look for so long at what comes in; 0: do not (default: 2, as root)",
    )  # fmt: skip
    looked_at = ("prometheus", "event_transport")
    add_options(
        sub, Config,
        lambda field: field.name in looked_at or field.name.startswith(("influxdb", "kafka"))
        or bool(field.metadata.get("decode") or field.name == "latency_unit"),
    )  # fmt: skip
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("intcollector")
    except PackageNotFoundError:
        return "(not installed)"


def configuration(arguments: argparse.Namespace, argv: Sequence[str], in_force: Config | None = None) -> Config:
    """The Config of a parsed command line; with --config, of what it does not say, the file's. Other files are read,
    but those that in_force holds."""
    given = options(arguments, Config)
    path = getattr(arguments, "config", None)
    if path:
        try:
            of_file = _parser(argv[0]).parse_args([argv[0], *read_options(path), *arguments.interfaces])
        except SystemExit:
            raise UsageError(f"the options in {path} are wrong: see above") from None
        for name in ("config", "verbose"):
            if getattr(of_file, name):
                raise UsageError(f"{name} in {path} has no effect: it belongs on the command line")
        given = options(of_file, Config) | given
    return config_of(given, in_force)


def run(arguments: argparse.Namespace) -> int:
    """`run`: SIGINT and SIGTERM end it, SIGHUP reads the options and opens the files again."""
    from .program import Loading

    config = configuration(arguments, arguments.argv)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    gc.disable()  # while it starts: modules are no garbage, and to look through them again and again takes time
    with _signals() as ended:
        loading = Loading(config)
        from .collector import Collector  # meanwhile

        _run(Collector(config, arguments.interfaces, loading), arguments, ended)
    return 0


def _run(opened: Any, arguments: argparse.Namespace, ended: Callable[[Callable[[], None]], None]) -> None:
    """Until it ends."""
    with contextlib.closing(opened) as collector:
        signal.signal(signal.SIGHUP, lambda *_: collector.soon(lambda: _reload(collector, arguments)))
        _greet(collector)
        gc.freeze()
        gc.enable()
        ended(collector.stop)
        collector.run()


def _greet(collector: Any) -> None:
    for attachment in collector.attachments:
        print(f"{attachment.name}: attached in {attachment.mode} mode", file=sys.stderr)
    _say_address(collector.prometheus_address)
    _ready()


def _say_address(address: tuple[str, int] | None) -> None:
    if address:
        host, port = address
        print(f"metrics: http://{f'[{host}]' if ':' in host else host}:{port}/metrics", file=sys.stderr)
        print(f"look: {_page(address)}", file=sys.stderr, flush=True)


def _page(address: tuple[str, int]) -> str:
    """Where a browser on this machine finds the page."""
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _ready() -> None:
    print("ready", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """SIGINT and SIGTERM call what is given, at once if one came before."""
    came = False
    stop: Callable[[], None] = lambda: None  # noqa: E731

    def handle(*_: Any) -> None:
        nonlocal came
        came = True
        stop()

    def ended(action: Callable[[], None]) -> None:
        nonlocal stop
        stop = action
        if came:
            action()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reload(collector: Any, arguments: argparse.Namespace) -> None:
    """What changed in files and can change in a running collector; the rest is named."""
    collector.reopen()
    collector.look_at_files(now=True)
    if not arguments.config:
        return
    try:
        wanted = configuration(arguments, arguments.argv, collector.config)
    except IntCollectorError as error:
        log.error("nothing changed: %s", error)
        return
    live, later = {}, []
    for field in dataclasses.fields(Config):
        value, before = getattr(wanted, field.name), getattr(collector.config, field.name)
        if value == before and path_of(value) == path_of(before):
            continue
        if field.metadata.get("live"):
            live[field.name] = value
        else:
            later.append(flag(field))
    collector.apply(dataclasses.replace(collector.config, **live))
    log.warning("options read again, %d changed", len(live))
    if later:
        log.warning("these need a restart: %s", ", ".join(later))


def relay(arguments: argparse.Namespace) -> int:
    """`relay`: SIGINT and SIGTERM end it, SIGHUP opens the files again."""
    given = options(arguments, Config)
    if not given.get("kafka"):
        raise UsageError("--kafka is missing: give HOST[:PORT] of the brokers that `run --kafka` sends to")
    if not arguments.kafka_group:
        raise UsageError("--kafka-group is empty: give the relays that share the events one name")
    if not any(given.get(name) for name in ("influxdb", "jsonl", "prometheus")):
        raise UsageError("nowhere to relay to: give --influxdb URL, --jsonl PATH, --prometheus [HOST:]PORT, or several")
    config = config_of(given)

    from .relay import Relay

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to open again
    with _signals() as ended, contextlib.closing(Relay(config, arguments.kafka_group, _ready)) as made:
        signal.signal(signal.SIGHUP, lambda *_: made.soon(made.reopen))
        _say_address(made.prometheus_address)
        ended(made.stop)
        made.run()
    return 0


def decode(arguments: argparse.Namespace) -> int:
    """`decode`: both engines print the same."""
    from . import capture, decoding
    from .progress import Progress

    config = config_of(options(arguments, Config))
    reading = capture.Reading()
    packets: Iterator[bytes] = (frame for frame, _ in capture.read(arguments.capture, reading))
    with contextlib.ExitStack() as stack:
        explain: Callable[[Any], None] = lambda answer: None  # noqa: E731
        if arguments.verbose or sys.stderr.isatty():
            packets, explain = stack.enter_context(_explaining(packets, config))
        # ends before that: what is explained comes where the bar was
        tell = stack.enter_context(Progress("decoding", "packets", lambda _: reading.share(), results=True))
        if arguments.engine == "kernel":
            decoder = decoding.KernelDecoder(config)
            stack.callback(decoder.close)
            answers = decoder.decode(packets)
        else:
            answers = decoding.by_python(packets, config)
        for number_, answer in enumerate(answers):
            print(json.dumps({"packet": number_} | answer))
            explain(answer)
            if number_ % decoding.TOGETHER == 0:
                tell(number_)
    return 0


@contextlib.contextmanager
def _explaining(
    packets: Iterator[bytes], config: Config
) -> Iterator[tuple[Iterator[bytes], Callable[[dict[str, Any]], None]]]:
    """At the end, if few of the packets are reports that can be read: why. Takes the packets on their way to a decoder,
    and its answers, in the same order."""
    from .diagnosis import Tally, diagnose, text

    tally, waiting = Tally(config, "file"), collections.deque[bytes]()

    def passing() -> Iterator[bytes]:
        for packet in packets:
            waiting.append(packet)
            yield packet

    yield passing(), lambda answer: tally.add(waiting.popleft(), answer)
    findings = diagnose(tally.seen(0.0))
    if any(finding.state != "ok" for finding in findings):
        sys.stdout.flush()
        print(text(findings), file=sys.stderr)


def generate(arguments: argparse.Namespace) -> int:
    """`generate`."""
    from . import sending, traffic
    from .progress import Progress, of_count

    given = options(arguments, traffic.Traffic)
    made = traffic.Traffic(**given)
    if arguments.output:
        if arguments.seconds:
            raise UsageError("--seconds is for an interface; give --packets")
        begin = time.perf_counter()
        with Progress("writing", "reports", of_count(made.packets), results=arguments.output == "-") as tell:
            traffic.write(made, arguments.output, tell)
        took = time.perf_counter() - begin
        print(f"wrote {made.packets} reports to {arguments.output} in {took:.2f} s", file=sys.stderr)
        return 0
    count = None if arguments.seconds and "packets" not in given else made.packets
    rate = made.rate if "rate" in given else None
    with Progress("sending", "reports", of_count(count, arguments.seconds)) as tell:
        sent = sending.send(made, arguments.interface, rate=rate, count=count, seconds=arguments.seconds, tell=tell)
    return _sent(sent)


def replay(arguments: argparse.Namespace) -> int:
    """`replay`."""
    from .capture import Reading
    from .progress import Progress
    from .replay import replay as send

    reading = Reading(arguments.loop)
    with Progress("sending", "packets", lambda _: reading.share()) as tell:
        sent = send(
            arguments.capture, arguments.interface, rate=arguments.rate, loop=arguments.loop, tell=tell, reading=reading
        )
    return _sent(sent)


def _sent(sent: Any) -> int:
    if sent.why:
        log.warning("sent by packet socket, which is slow: %s", sent.why)
    print(f"sent {sent.sent} packets in {sent.seconds:.3f} s, {sent.rate:.0f} packets/s")
    if sent.dropped:
        print(f"intcollector: {sent.dropped} packets were not taken by the interface", file=sys.stderr)
        return 1
    return 0


def top(arguments: argparse.Namespace) -> int:
    """`top`."""
    from . import tables, watching

    address = watching.Address(arguments.url)
    if arguments.view not in (None, *tables.VIEWS):
        raise UsageError(f"there is no view {arguments.view}: give one of {', '.join(tables.VIEWS)}")
    if arguments.json and not arguments.once:
        raise UsageError("--json needs --once")
    view = arguments.view or next(iter(tables.VIEWS))
    if arguments.sort and (arguments.view or not arguments.once):
        tables.VIEWS[view].column(arguments.sort)
    if arguments.once:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # bars where the locale has none
        picture = watching.picture(address)
        if arguments.json:
            print(json.dumps(picture))
            return 0
        views = [arguments.view] if arguments.view else list(tables.VIEWS)
        limit = arguments.limit or (None if arguments.view else 10)
        print("\n".join(tables.text(picture, views, arguments.sort, arguments.reverse, limit)))
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal: with --once it prints its tables once, with --once --json all as JSON")
    watching.get(address, "")  # nobody there: said here, not on a screen of its own
    from .top import Top

    app = Top(address, view=view, sort=arguments.sort, reverse=arguments.reverse, limit=arguments.limit)
    app.run()
    return app.return_code or 0


def lab(arguments: argparse.Namespace) -> int:
    """`lab up | down | demo`."""
    from . import lab as pair

    if arguments.action == "down":
        pair.down(arguments.names)
        return 0
    # not by /sys, which may be another namespace's
    there = {name for _, name in socket.if_nameindex()} & set(arguments.names)
    pair.up(arguments.names)
    if arguments.action == "up":
        first, second = arguments.names
        print(f"{first} and {second} are up: what is sent on one comes in at the other")
        return 0
    try:
        return _demo(arguments)
    finally:
        if not there:  # a pair that `lab up` made stays
            pair.down(arguments.names)


def _is_free(host: str, port: int) -> bool:
    """Can a server listen there?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """In a child: it ends when its parent does, however that ends; Ctrl-C is the parent's to handle."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.setsid()


def _demo(arguments: argparse.Namespace) -> int:
    """Traffic comes from a process of its own, as it would."""
    from .collector import Collector
    from .view import View

    given = options(arguments, Config)
    config = Config(**given, port=(54321,), int_dscp=(23, 63))
    ours, theirs = arguments.names
    command = [
        sys.executable, "-m", "intcollector", "generate", "-i", theirs, "--seconds", str(arguments.seconds or 86400),
        # a network that fits a screen, in which something happens now and then: a path changes every 20 seconds
        "--rate", str(arguments.rate), "--flows", "24", "--sources", "2", "--hops", "4", "--switches", "3",
        "--event-rate", "0.002", "--path-changes", f"{min(0.1, 0.05 / arguments.rate):.9f}", "--drop-reports", "0.0002",
        "--congestion-reports", "0.0005", "--seed", "4",  # of this one a path changes within seconds, too
    ]  # fmt: skip
    with _signals() as ended:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))  # the terminal was closed
        if "prometheus" not in given and config.prometheus and not _is_free(*config.prometheus):
            log.warning("port 8000 is in use: the page is on another one")
            config = dataclasses.replace(config, prometheus=("127.0.0.1", 0))
        with contextlib.closing(Collector(config, [ours])) as collector:
            _greet(collector)
            page = collector.prometheus_address and _page(collector.prometheus_address)
            if page:
                print(f"\n    Open {page} in a browser.\n", file=sys.stderr, flush=True)
            quiet = None if arguments.verbose else subprocess.DEVNULL
            sender = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=quiet, preexec_fn=_die_with_parent)
            try:
                ended(collector.stop)
                view = View(collector.state, config)
                end = time.monotonic() + (arguments.seconds or float("inf"))
                while not collector.stopped and time.monotonic() < end:
                    collector.run(min(2.0, max(0.1, end - time.monotonic())))
                    print(view.text())
                    if page:  # what was said at the beginning is soon out of sight
                        print(f"  all of it: {page}")
                    sys.stdout.flush()
                    if sender.poll() is not None and time.monotonic() < end - 1:
                        raise IntCollectorError(f"the generator ended early (exit code {sender.returncode}): see above")
            finally:
                sender.terminate()
                sender.wait()
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """`doctor`: exit code 1 if something is bad."""
    from . import doctor as examine
    from .diagnosis import text

    config = config_of(options(arguments, Config))
    if arguments.listen and arguments.interface is None:
        raise UsageError("--listen needs an interface to listen on")
    findings = examine.diagnose(arguments.interface, config, arguments.listen)
    if arguments.load:
        findings.append(examine.program(config))
    print(text(findings))
    return 1 if any(f.state == "bad" for f in findings) else 0


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # numpy's library for linear algebra, which nothing here uses, starts a thread a CPU when it is imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = _parser(next((word for word in argv if not word.startswith("-")), None)).parse_args(argv)
    arguments.argv = argv
    logging.basicConfig(level=logging.ERROR, format="intcollector: %(message)s", stream=sys.stderr)
    log.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)  # ours; of libraries, errors only
    try:
        code = arguments.function(arguments)
        sys.stdout.flush()
    except IntCollectorError as error:
        if arguments.verbose:
            log.exception("%s", error)
        else:
            print(f"intcollector: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except KeyboardInterrupt:
        print("intcollector: interrupted", file=sys.stderr)
        code = 1
    except OSError as error:
        if arguments.verbose:
            log.exception("%s", error)
        else:
            print(f"intcollector: {error}; -v shows where", file=sys.stderr)
        code = 1
    sys.exit(code)
