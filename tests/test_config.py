"""config.py: what files of sources, drop reasons and links say, who is set how, and what is wrong with a file."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intcollector.collector import WatchedFile, difference
from intcollector.config import (
    MAX_SOURCES,
    Config,
    FromFile,
    Network,
    Source,
    content_of,
    http_url,
    read_drop_reasons,
    read_links,
    read_sources,
)
from intcollector.errors import UsageError

SOURCES = b"""
# a comment
["192.0.2.1"]
profile = "onos"
int-dscp = "23/63"
latency-unit = "us"

["2001:db8::/32"]
queue-occupancy-bytes = 80
tx-utilization-full = 10_000
sampling-ratio = "0x64"

["192.0.2.0/24"]
int-dscp = "off"

["198.51.100.7"]
"""


def sources(text: str) -> FromFile[Source]:
    return read_sources(text.encode(), "sources.toml")


# --- sources ----------------------------------------------------------------------------------------------------------


def test_sources() -> None:
    """A file of sources is its entries in order, each a network and the fields that differ, as the command line has
    them."""
    found = read_sources(SOURCES, "sources.toml")
    assert tuple(found) == (
        Source(
            ipaddress.ip_network("192.0.2.1/32"),
            (("int_dscp", (23, 63)), ("latency_unit", "us"), ("profile", "onos")),
        ),
        Source(
            ipaddress.ip_network("2001:db8::/32"),
            (("queue_occupancy_bytes", 80), ("sampling_ratio", 100), ("tx_utilization_full", 10_000)),
        ),
        Source(ipaddress.ip_network("192.0.2.0/24"), (("int_dscp", None),)),
        Source(ipaddress.ip_network("198.51.100.7/32"), ()),
    )
    assert found.path == "sources.toml"
    assert hash(Config(sources=found)) == hash(Config(sources=tuple(found)))


def test_of_source() -> None:
    """What an entry does not say is the command line's, not a shorter prefix's; who has no entry has the command
    line's; without a file everybody has."""
    config = Config(int_dscp=(1, 1), keepalive=7.0, sources=read_sources(SOURCES, ""))
    one = config.of_source("192.0.2.1")
    assert (one.profile, one.int_dscp, one.latency_unit, one.keepalive) == ("onos", (23, 63), "us", 7.0)
    other = config.of_source("192.0.2.2")
    assert (other.profile, other.int_dscp, other.latency_unit) == ("spec", None, "ns")
    wide = config.of_source("2001:db8:1::1")
    assert (wide.queue_occupancy_bytes, wide.tx_utilization_full, wide.sampling_ratio) == (80, 10_000, 100)
    assert config.of_source("192.0.3.1") is config
    assert config.of_source("2001:db9::1") is config
    assert config.of_source("198.51.100.7") == dataclasses.replace(config, sources=())
    assert one.of_source("192.0.2.2") is one
    plain = Config()
    assert plain.of_source("192.0.2.1") is plain
    assert [network for network, _ in config.profiles()] == [None, *(source.network for source in config.sources)]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Prefixes that often lie in one another: their addresses differ in few bits."""
    bits = draw(st.sampled_from([32, 128]))
    length = draw(st.integers(0, bits))
    address = draw(addresses(bits))
    kind = ipaddress.IPv4Network if bits == 32 else ipaddress.IPv6Network
    return kind((address >> bits - length << bits - length, length))


def addresses(bits: int) -> st.SearchStrategy[int]:
    few = st.lists(st.integers(0, bits - 1), max_size=3)
    return few.map(lambda ones: sum(1 << one for one in set(ones)))


@given(st.lists(networks(), min_size=1, max_size=20, unique=True), st.data())
@example([ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0")], None)
def test_longest_prefix(prefixes: list[Network], data: st.DataObject | None) -> None:
    """of_source() finds what looking at every entry finds: of those the address is in, the one with the longest
    prefix."""
    entries = tuple(Source(network, (("sampling_ratio", at + 2),)) for at, network in enumerate(prefixes))
    config = Config(sources=entries)
    wanted = [ipaddress.ip_address("255.0.0.1"), ipaddress.ip_address("ff::1")]
    if data is not None:
        wanted = [
            *map(ipaddress.IPv4Address, data.draw(st.lists(addresses(32), max_size=10))),
            *map(ipaddress.IPv6Address, data.draw(st.lists(addresses(128), max_size=10))),
            *(network.network_address for network in prefixes),
            *(network.broadcast_address for network in prefixes),
        ]
    for address in wanted:
        around = [entry for entry in entries if address in entry.network]
        longest = max(around, key=lambda entry: entry.network.prefixlen, default=None)
        expected = longest.changes[0][1] if longest else 1
        for _ in range(2):  # the second time it is remembered
            assert config.of_source(str(address)).sampling_ratio == expected


def test_any_number_of_addresses() -> None:
    """Addresses are what anybody writes into packets: of_source() does not remember all of them."""
    config = Config(sources=sources('["10.0.0.0/9"]\nprofile = "geant"\n'))
    for number in range(20_000):
        assert config.of_source(str(ipaddress.IPv4Address(0x0A7FF000 + number))).profile == (
            "geant" if number < 0x1000 else "spec"
        )
    assert len(config._known) <= 4096


def test_most_sources() -> None:
    """As many entries as the kernel program has room for are taken, and not one more."""
    text = "".join(f'["10.0.{at}.0/24"]\n' for at in range(MAX_SOURCES))
    assert len(sources(text)) == MAX_SOURCES
    with pytest.raises(UsageError, match="256 entries, at most 255 are possible: give a prefix"):
        sources(text + '["10.1.0.0/24"]')


WRONG_SOURCES = [
    (
        '["192.0.2.1"]\nprofil = "onos"',
        '["192.0.2.1"]: profil is not an option of a source: choose from int-dscp, prof',
    ),
    ('["192.0.2.1"]\nport = 5', '["192.0.2.1"]: port is not an option of a source: choose from '),
    (
        '["192.0.2.1"]\nprofile = "onus"',
        '["192.0.2.1"]: profile: "onus" is not possible: choose from spec, l2port4, ge',
    ),
    ('["192.0.2.1"]\nlatency-unit = "s"', 'latency-unit: "s" is not possible: choose from ns, us, ms, 2^-32s'),
    ('["192.0.2.1"]\nint-dscp = 64', '["192.0.2.1"]: int-dscp: 64 is not between 0 and 63: see --int-dscp'),
    ('["192.0.2.1"]\nint-dscp = "1/2"', "int-dscp: no DSCP can match '1/2': the value has bits outside the mask"),
    ('["192.0.2.1"]\nint-dscp = false', "int-dscp: false is neither a whole number nor a word in quotes"),
    ('["192.0.2.1"]\nsampling-ratio = 0', "sampling-ratio: 0 is not between 1 and 4294967295"),
    ('["192.0.2.1"]\nsampling-ratio = 1.5', "sampling-ratio: 1.5 is neither a whole number nor a word in quotes"),
    ('["192.0.2.1"]\nsampling-ratio = [1]', "sampling-ratio: a list is neither a whole number"),
    ('["192.0.2.1"]\nsampling-ratio.a = 1', "sampling-ratio: a table is neither a whole number"),
    ('["192.0.2.1"]\nsampling-ratio = 1979-05-27', 'sampling-ratio: "1979-05-27" is neither a whole number'),
    (f'["192.0.2.1"]\nsampling-ratio = 0x{"f" * 5000}', "sampling-ratio: the number is too large: see"),
    (f'["192.0.2.1"]\nsampling-ratio = {"9" * 5000}', "sources.toml is not TOML: "),
    ('["192.0.2.0/33"]', '["192.0.2.0/33"] is not a prefix: write an IPv4 or IPv6 address, or a prefix, in quotes'),
    ('["192.0.2.0/255.255.255.0"]', '["192.0.2.0/255.255.255.0"] is not a prefix'),
    ('["192.0.2.0/"]', "is not a prefix"),
    ('["2001:db8::/129"]', "is not a prefix"),
    ('["fe80::1%eth0"]', "is not a prefix"),
    ('["192.0.2.1/24"]', '["192.0.2.1/24"] has bits set behind its prefix: write "192.0.2.0/24", or "192.0.2.1" for '),
    ('["2001:db8::1/32"]', 'write "2001:db8::/32", or "2001:db8::1"'),
    ('["switch7"]', "[switch7] is not an address: write an IPv4 or IPv6 address, or a prefix, in quotes"),
    ("[192.0.2.1]", "[192] is not an address: write an IPv4 or IPv6 address, or a prefix, in quotes"),
    ('profile = "onos"', "sources.toml: profile is not an address"),
    ('"192.0.2.1" = "onos"', '"192.0.2.1" is no table: write ["192.0.2.1"], and below it its options'),
    ('["2001:db8::1"]\n["2001:DB8:0::1/128"]', '["2001:DB8:0::1/128"] is there twice, the other time in other words'),
    ('["192.0.2.1"]\n["192.0.2.1"]', "(at line 2, column "),
    ('["192.0.2.1"]\nprofile = onos', "(at line 2, column 11)"),
    ('["192.0.2.1"', "sources.toml is not TOML: "),
    ("a = " + "[" * 100_000, "sources.toml is not TOML: "),
]


@pytest.mark.parametrize(("text", "said"), WRONG_SOURCES, ids=lambda text: text[:40])
def test_wrong_sources(text: str, said: str) -> None:
    """What is wrong with a file of sources is one line that names the file, the entry, the key, the value, and what to
    write instead."""
    with pytest.raises(UsageError) as caught:
        sources(text)
    message = str(caught.value)
    assert message.startswith("sources.toml") and said in message
    assert "\n" not in message and len(message) < 300


def test_not_utf_8() -> None:
    """Bytes that are no text are an error with their line; a byte order mark is none."""
    with pytest.raises(UsageError, match=r"sources.toml, line 2: this is not UTF-8: save the file as UTF-8 text"):
        read_sources(b'# text\n["\xff"]\n', "sources.toml")
    assert len(read_sources(b'\xef\xbb\xbf["192.0.2.1"]\r\nprofile = "onos"\r\n', "")) == 1


# --- drop reasons, links ----------------------------------------------------------------------------------------------


def test_built_in_drop_reasons() -> None:
    """Without a file, drop reasons have the names that switch.p4 and fabric-tna give them."""
    names = Config().drop_reason_names
    known = {
        0: "unknown", 10: "outer_src_mac_zero", 26: "outer_ip_ttl_zero", 29: "outer_ip_miss",
        55: "port_vlan_mapping_miss", 70: "mtu_check_fail", 71: "traffic_manager", 80: "acl_deny",
        89: "l2_miss_unicast", 128: "next_id_miss", 131: "mpls_ttl_zero", 171: "routing_v6_drop",
    }  # fmt: skip
    assert known.items() <= names.items()
    assert all(name.isidentifier() and name == name.lower() for name in names.values())


def test_drop_reasons() -> None:
    """A file of drop reasons replaces all of the built-in names; an empty one leaves none."""
    found = read_drop_reasons(b'80 = "verboten"\n0x51 = "Kein Weg"\n"7" = "weg"\n', "reasons.toml")
    assert found == ((80, "verboten"), (81, "Kein Weg"), (7, "weg"))
    assert Config(drop_reasons=found).drop_reason_names == {80: "verboten", 81: "Kein Weg", 7: "weg"}
    assert Config(drop_reasons=read_drop_reasons(b"", "")).drop_reason_names == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('256 = "x"', "reasons.toml: 256: 256 is not between 0 and 255: write drop reasons as NUMBER ="),
        ('acl = "x"', "reasons.toml: acl: 'acl' is not a whole number: write drop reasons as NUMBER ="),
        ("80 = 5", '80: 5 is not a name: write it in quotes, as in 80 = "acl_deny"'),
        (f"80 = 0x{'f' * 5000}", "80: a large number is not a name"),
        ('80 = " "', '80: " " is not a name'),
        ('80 = "a\\nb"', '80: "a\\nb" is not a name'),
        ('80 = "81"', '80: "81" could be taken for a drop reason without a name'),
        ('80 = "a"\n0x50 = "b"', "0x50: drop reason 80 is there twice"),
        ('80 = "a"\n81 = "a"', '81: "a" is already the name of another drop reason: give each its own'),
        ('[80]\nname = "a"', "80: a table is not a name"),
        ('80 = "a"\n80 = "b"', "reasons.toml is not TOML: "),
    ],
)
def test_wrong_drop_reasons(text: str, said: str) -> None:
    """What is wrong with a file of drop reasons is one line that names the file, the number and the name."""
    with pytest.raises(UsageError) as caught:
        read_drop_reasons(text.encode(), "reasons.toml")
    assert str(caught.value).startswith("reasons.toml") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links() -> None:
    """A file of links is (switch, its egress port, the switch behind it) each, in order; it may be empty."""
    text = b'[[link]]\nswitch = 1\negress-port = 3\nto = 2\n[[link]]\nto = "0x11"\nswitch = 0xFFFFFFFE\negress-port = 0'
    assert read_links(text, "links.toml") == ((1, 3, 2), (2**32 - 2, 0, 17))
    assert read_links(b"", "links.toml") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[link]]\nswitch = 1\nto = 2", "link 1: egress-port is missing: a link has switch, egress-port, to"),
        ("[[link]]\nswitch = 1\nto = 2\negress-port = 1\nvia = 1", "link 1: via is no key: a link has switch,"),
        ("[[link]]\nswitch = -1\nto = 2\negress-port = 1", "link 1: switch: -1 is not between 0 and 4294967294"),
        ("[[link]]\nswitch = 1\nto = 4294967295\negress-port = 1", "link 1: to: 4294967295 is not between 0 and"),
        ("[[link]]\nswitch = 1\nto = 2\negress-port = 65535", "link 1: egress-port: 65535 is not between 0 and 65534"),
        ("[[link]]\nswitch = true\nto = 2\negress-port = 1", "link 1: switch: true is neither a whole number"),
        ("[[link]]\nswitch = 1\nto = 1\negress-port = 1", "link 1: switch 1 leads to itself"),
        ("[[link]]\nswitch=1\nto=2\negress-port=1\n[[link]]\nswitch=1\nto=3\negress-port=1",
         "link 2: egress port 1 of switch 1 is there twice: keep one of them"),
        ("[link]\nswitch = 1\nto = 2\negress-port = 1", "links.toml: link is not a link: write [[link]]"),
        ("link = [1]", "links.toml: link is not a link: write [[link]]"),
        ("[[links]]\nswitch = 1", "links.toml: links is not a link: write [[link]]"),
        ("[[link]]\nswitch: 1", "links.toml is not TOML: "),
    ],
)  # fmt: skip
def test_wrong_links(text: str, said: str) -> None:
    """What is wrong with a file of links is one line that names the file, the link, the key and the value."""
    with pytest.raises(UsageError) as caught:
        read_links(text.encode(), "links.toml")
    assert str(caught.value).startswith("links.toml") and said in str(caught.value)
    assert "\n" not in str(caught.value)


PIECES = (
    '["192.0.2.1"]\n', '["::/0"]\n', "[[link]]\n", "[link]\n", 'profile = "onos"\n', "int-dscp = 23\n", '80 = "acl"\n',
    "switch = 1\n", "egress-port = 3\n", "to = 2\n", '"', "[", "]", "=", "\n", "#", "é", "\0", "0x", "{", "1979-05-27",
    '"" = {}\n', "a.b = 1\n", "inf", "nan", "true", "[[80]]\n", '"1/2/3"', '"%"', '"/"',
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES)).map("".join).map(str.encode) | st.binary())
@pytest.mark.parametrize("read", [read_sources, read_drop_reasons, read_links])
def test_any_file(read: Callable[[bytes, str], FromFile[Any]], content: bytes) -> None:
    """Whatever stands in a file, it is read, to something hashable, or refused in one line."""
    said = None
    try:
        hash(read(content, "file"))
    except UsageError as error:
        said = str(error)
    assert said is None or (said.startswith("file") and "\n" not in said)


# --- files that change ------------------------------------------------------------------------------------------------


class Watched:
    """A file of sources that a collector would watch, and what it takes it to say."""

    def __init__(self, path: pathlib.Path, text: str) -> None:
        self.path = path
        path.write_text(text)
        self.in_force = read_sources(content_of(str(path)), str(path))
        self.file = WatchedFile("sources", str(path), read_sources)

    def looks(self, count: int = 1, *, now: bool = False) -> bool:
        """Has one of so many looks taken up another content?"""
        found = False
        for _ in range(count):
            value = self.file.look(self.in_force, now=now)
            if value is not None:
                self.in_force, found = value, True
        return found


GEANT, ONOS = (f'["192.0.2.1"]\nprofile = "{name}"\n' for name in ("geant", "onos"))


@pytest.fixture
def watched(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO)
    made = Watched(tmp_path / "sources.toml", GEANT)
    assert not made.looks(3)
    return made


def profile(watched: Watched) -> str:
    return dict(watched.in_force[0].changes)["profile"]


def test_file_that_is_written_to(watched: Watched) -> None:
    """A file that was written to, or replaced, is taken up at the second look at it, and once."""
    watched.path.write_text(ONOS)
    assert not watched.looks()
    assert watched.looks()
    assert profile(watched) == "onos"
    assert not watched.looks(3)
    other = watched.path.with_name("other")
    other.write_text(GEANT)
    os.replace(other, watched.path)
    assert watched.looks(2)
    assert profile(watched) == "geant"


def test_file_that_is_being_written_to(watched: Watched) -> None:
    """A file that is another at every look is not read: what is there may be half of it."""
    for length in range(len(ONOS)):
        watched.path.write_text(ONOS[:length])
        assert not watched.looks()
    watched.path.write_text(ONOS)
    assert not watched.looks()
    assert watched.looks()


def test_same_size_and_time(watched: Watched) -> None:
    """A change that keeps the size and the time of the last writing is seen."""
    before = watched.path.stat()
    watched.path.write_text(GEANT.replace("192.0.2.1", "192.0.2.2"))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watched.looks(2)


def test_file_that_changed_before_the_first_look(tmp_path: pathlib.Path) -> None:
    """What was written between the reading of the options and the first look is taken up."""
    watched = Watched(tmp_path / "sources.toml", GEANT)
    watched.path.write_text(ONOS)
    assert watched.looks(2)


def test_file_that_is_touched(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """A file that says the same again, or in other words, is nothing new, and nothing is said of it."""
    watched.path.touch()
    assert not watched.looks(3)
    watched.path.write_text("# a comment\n" + GEANT)
    assert not watched.looks(3)
    assert caplog.text == ""


def test_file_that_is_wrong(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Of a file that is wrong, or gone, is said what is wrong, once for each content, and what it said before stays;
    that it is right again is said, too."""
    watched.path.write_text('["192.0.2.1"]\nprofile = "nosuch"\n')
    assert not watched.looks(5)
    watched.path.touch()
    assert not watched.looks(5)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages[-1].startswith(f'{watched.path}: ["192.0.2.1"]: profile: "nosuch" is not possible: choose')
    assert caplog.messages[-1].endswith("; what was read before stays in force")
    watched.path.write_text('["192.0.2.1"]\n\nprofile = "nosuch"\n')
    assert not watched.looks(5)
    assert len(caplog.messages) == 2
    watched.path.unlink()
    assert not watched.looks(5)
    assert len(caplog.messages) == 3
    assert caplog.messages[-1].startswith(f"cannot read {watched.path} (No such file or directory): ")
    assert profile(watched) == "geant"
    watched.path.write_text(GEANT)
    assert not watched.looks(5)
    assert caplog.messages[3:] == [f"{watched.path} read again: 1 entry, nothing changed"]


def test_file_that_is_asked_for(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Asked to look now, it is read at the first look, and spoken of also if nothing changed or the same is wrong."""
    assert not watched.looks(now=True)
    assert caplog.messages == [f"{watched.path} read again: 1 entry, nothing changed"]
    watched.path.write_text(ONOS)
    assert watched.looks(now=True)
    watched.path.write_text("nonsense")
    assert not watched.looks(2, now=True)
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "ERROR"]
    assert not watched.looks(3)
    assert len(caplog.messages) == 3


def test_pipe(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read twice is not looked at again, and asking for it does not wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    file = WatchedFile("sources", str(tmp_path / "pipe"), read_sources)
    before = sources(GEANT)
    assert [file.look(before) for _ in range(3)] == [None] * 3
    assert caplog.messages == []
    assert file.look(before, now=True) is None
    assert "is not a file any more" in caplog.text


def test_difference() -> None:
    """What is said of another content: entries, and how many are new, changed and gone."""
    one = sources('["192.0.2.1"]\nprofile = "onos"\n["192.0.2.2"]\n')
    two = sources('["192.0.2.1"]\nprofile = "geant"\n["192.0.2.3"]\n["192.0.2.4"]')
    assert difference(one, two) == "3 entries, 2 new, 1 changed, 1 gone"
    assert difference(one, one) == "2 entries, nothing changed"
    links = [read_links(f"[[link]]\nswitch = 1\negress-port = 3\nto = {to}".encode(), "") for to in (2, 3)]
    assert difference(*links) == "1 entry, 1 changed"


def test_file_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    """A file that is not there, is none, or is too large is an error with its name and the reason."""
    for path, reason in ((tmp_path / "nosuch", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"cannot read {path} .{reason}.: give a file that is there and readable"):
            content_of(str(path))
    with pytest.raises(UsageError, match="/dev/zero is larger than 1048576 bytes"):
        content_of("/dev/zero")


def test_examples() -> None:
    """What docs/options.md shows of the three files is right."""
    text = (pathlib.Path(__file__).parents[1] / "docs/options.md").read_text()
    sources_, reasons, links = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    config = Config(sources=sources(sources_))
    assert [config.of_source(f"192.0.2.{n}").profile for n in (1, 7)] == ["onos", "spec"]
    assert config.of_source("2001:db8::1").queue_occupancy_bytes == 80
    assert read_drop_reasons(reasons.encode(), "") == ((80, "acl_deny"), (128, "next_id_miss"))
    assert read_links(links.encode(), "") == ((1, 3, 2), (2, 1, 17))


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["ftp://db", "http://", "db:0", "db:99999", "http://db:x", "http://[::1", "http://db..example.net:8086",
     f"http://{'a' * 64}.net"],
)  # fmt: skip
def test_what_is_no_http_address(text: str) -> None:
    """Another scheme, and a host or port that cannot be, is refused, and repeated."""
    with pytest.raises(UsageError) as refused:
        http_url(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["http://me:hunter2@db", "hunter2@db:8086", "http://me:hunter2@db:99999", "http://me:hun/ter2@db", "me:hunter2@[db",
     "http://db:8086/?u=me&p=hunter2", "db/?p=hunter2", "http://db:99999/?p=hunter2", "http://db/#hunter2",
     "http://db?hunter2"],
)  # fmt: skip
def test_a_password_in_an_address(text: str) -> None:
    """An address that may hold a password is refused, and not repeated."""
    with pytest.raises(UsageError) as refused:
        http_url(text)
    assert "password" in str(refused.value) and "ter2" not in str(refused.value)


def test_http_addresses() -> None:
    """What an address may be: a host or an IP address, with a port, a path and a scheme or without."""
    for text, url in (
        ("db.example.net:8086", "http://db.example.net:8086"), ("https://db_1/influx/", "https://db_1/influx"),
        ("http://[fe80::1]:8086", "http://[fe80::1]:8086"), ("http://db/a@b", "http://db/a@b"),
    ):  # fmt: skip
        assert http_url(text) == url
