"""InfluxDB's versions, secrets and certificates: what is asked, and what is refused before anything is."""

from __future__ import annotations

import base64
import logging
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from intcollector.config import Config
from intcollector.errors import UsageError
from intcollector.exporters.influxdb import InfluxDB
from intcollector.exporters.influxdb_server import PASSWORD, TOKEN, Server, retry_after

from . import servers
from .batches import batch_of
from .faulty import Authority, faulty, say, tls_of
from .pushing import many, pushing, settled

URL = "http://127.0.0.1:9"
SECRET = "Yq3+s8/very-secret=="


@pytest.fixture
def token(tmp_path: pathlib.Path) -> str:
    """A file with a token."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return str(file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


# --- three versions ---------------------------------------------------------------------------------------------------


def test_version_1(token: str) -> None:
    """InfluxDB 1: /write with the database, a user by basic authentication; the database is asked for first."""
    more: dict[str, Any] = {"influxdb_user": "jo", "influxdb_password": token}
    with faulty(say(204)) as server, pushing(server.url, "a b", **more) as exporter:
        exporter.write(batch_of(many(1)))
        assert settled(exporter).delivered == 2
    assert [one.path for one in server.requests] == ["/query", "/write?db=a+b&precision=ns"]
    proof = "Basic " + base64.b64encode(f"jo:{SECRET}".encode()).decode()
    assert {one.headers["authorization"] for one in server.requests} == {proof}


@pytest.mark.parametrize(
    ("options", "path", "proof"),
    [
        (
            {"influxdb_org": "o&o", "influxdb_bucket": "b/c"},
            "/api/v2/write?org=o%26o&bucket=b%2Fc&precision=ns",
            "Token",
        ),
        (
            {"influxdb_version": "3", "influxdb_database": "d"},
            "/api/v3/write_lp?db=d&precision=nanosecond&accept_partial=true&no_sync=false",
            "Bearer",
        ),
    ],
)
@pytest.mark.parametrize("of_proxy", ["", "/influx"])
def test_versions_2_and_3(options: dict[str, Any], path: str, proof: str, of_proxy: str, token: str) -> None:
    """InfluxDB 2 and 3: their paths, also below that of a proxy, and a token; no other request is made."""
    with (
        faulty(say(204)) as server,
        pushing(server.url + of_proxy, influxdb_token=token, **options) as exporter,
    ):
        exporter.write(batch_of(many(3)))
        assert settled(exporter).delivered == 6
    (request,) = server.requests
    assert (request.path, request.headers["authorization"]) == (of_proxy + path, f"{proof} {SECRET}")
    assert len(request.lines) == 6


def test_gzip(tmp_path: pathlib.Path) -> None:
    """With gzip the same lines go out, in fewer bytes, and a real server reads them."""
    bodies = []
    for compress in (False, True):
        with faulty(say(204)) as web, pushing(web.url, influxdb_gzip=compress) as exporter:
            exporter.write(batch_of(many(200)))
            settled(exporter)
        bodies.append(web.writes[0])
    plain, zipped = bodies
    assert plain.lines == zipped.lines and len(zipped.body) < len(plain.body) / 4
    assert (plain.headers.get("content-encoding"), zipped.headers["content-encoding"]) == (None, "gzip")
    with (
        servers.influxdb(tmp_path / "influxdb") as server,
        pushing(server.url, "zipped", influxdb_gzip=True) as exporter,
    ):
        exporter.write(batch_of(many(200)))
        assert settled(exporter).delivered == server.stored("zipped") == 400


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ({"influxdb_org": "o"}, {}, "needs --influxdb-bucket"),
        ({"influxdb_version": "2", "influxdb_bucket": "b"}, {}, "needs --influxdb-org"),
        ({"influxdb_version": "1", "influxdb_bucket": "b"}, {}, "--influxdb-bucket is for InfluxDB 2, not for 1"),
        ({"influxdb_version": "3", "influxdb_org": "o"}, {}, "--influxdb-org is for InfluxDB 2, not for 3"),
        ({}, {TOKEN: SECRET}, f"chosen by the environment's {TOKEN}; if it is another, say --influxdb-version"),
        ({"influxdb_version": "1"}, {TOKEN: SECRET}, f"the environment's {TOKEN} is for InfluxDB 2 and 3, not for 1"),
        ({"influxdb_user": "jo"}, {}, f"--influxdb-user needs a password: --influxdb-password FILE, or {PASSWORD}"),
        ({}, {PASSWORD: SECRET}, f"the environment's {PASSWORD} needs --influxdb-user NAME"),
        (
            {"influxdb_user": "jo"},
            {PASSWORD: SECRET, TOKEN: SECRET},
            "--influxdb-user is for InfluxDB 1, not for 2 (chosen by",
        ),
        ({"influxdb_org": "o", "influxdb_bucket": "b", "influxdb_database": "d"}, {}, "--influxdb-database is for"),
        ({"influxdb_version": "3", "influxdb_database": "a b"}, {}, "InfluxDB 3 takes letters, digits"),
        ({"influxdb_version": "3", "influxdb_database": "_a"}, {}, "not '_a'"),
        ({"influxdb_ca": "ca.pem"}, {}, "--influxdb-ca is for an https:// address"),
        ({"influxdb": "https://127.0.0.1", "influxdb_ca": "/nowhere/ca.pem"}, {}, "No such file"),
        ({"influxdb_user": "j:o"}, {PASSWORD: SECRET}, "a name with a colon"),
        ({}, {PASSWORD: "a\nb"}, "must hold one line"),
    ],
)
def test_contradictions(options: dict[str, Any], environment: dict[str, str], said: str) -> None:
    """Options that contradict each other are refused at the start, by name, without a secret."""
    with pytest.raises(UsageError) as refused:
        Server(Config(**{"influxdb": URL, **options}), environment)
    assert said in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "environment", "version"),
    [
        ({}, {}, 1),
        ({"influxdb_user": "jo"}, {PASSWORD: SECRET}, 1),
        ({"influxdb_org": "o", "influxdb_bucket": "b"}, {}, 2),
        ({"influxdb_org": "o", "influxdb_bucket": "b"}, {TOKEN: SECRET}, 2),
        ({"influxdb_version": "3"}, {}, 3),
        ({"influxdb_version": "3"}, {TOKEN: SECRET}, 3),
    ],
)
def test_version_chosen(options: dict[str, Any], environment: dict[str, str], version: int) -> None:
    """A token, an organisation or a bucket chooses 2, nothing 1; a version that is given stays."""
    assert Server(Config(influxdb=URL, **options), environment).version == version


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("literal", [SECRET, "/" + SECRET, "a" * 5000, "a\0b"])
@pytest.mark.parametrize("option", ["influxdb_token", "influxdb_password"])
def test_a_secret_where_a_file_belongs(literal: str, option: str) -> None:
    """Who gives the secret instead of its file's name is told so, and the secret is not repeated."""
    with pytest.raises(UsageError) as refused:
        Server(Config(**{"influxdb": URL, option: literal}), {})  # type: ignore[arg-type]
    said = str(refused.value)
    assert "it takes the name of a file, not the secret itself" in said and literal not in said
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"a\nb\n", "one line"), (b"\xff\xfe", "not text"), ("é".encode(), "plain")],
)
def test_a_file_that_holds_no_token(tmp_path: pathlib.Path, content: bytes, said: str) -> None:
    """A file that holds anything but one line is refused, and its content is not shown."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        Server(Config(influxdb=URL, influxdb_version="3", influxdb_token=str(file)), {})


def test_warnings(tmp_path: pathlib.Path, token: str) -> None:
    """What is allowed and not wise is said: a file that all can read, a secret over a network in the clear, a table for
    each flow in InfluxDB 3."""

    def warned(**options: Any) -> list[str]:
        return Server(
            Config(**{"influxdb": URL, "influxdb_version": "3", "influxdb_token": token, **options}), {}
        ).warnings

    assert warned() == []
    assert warned(influxdb="https://db.example.net") == []
    assert "unencrypted" in warned(influxdb="http://db.example.net")[0]
    assert "schema" in warned(influxdb_schema="intcollector")[0]
    pathlib.Path(token).chmod(0o644)
    assert "can be read by every user" in warned()[0]


def test_a_secret_from_a_pipe(tmp_path: pathlib.Path) -> None:
    """A pipe may be given for a file; it is read once, and never waited for again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(f"{SECRET}\n",))
    writer.start()
    server = Server(Config(influxdb=URL, influxdb_version="3", influxdb_token=str(pipe)), {})
    writer.join(servers.DEADLINE_S)
    assert server.hidden(f"a {SECRET} b") == "a *** b"
    assert server.read_secret_again() is False


def test_a_secret_that_is_replaced(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, token: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A user or password that a real server refuses is a problem that is said without the password; when the file holds
    the right one, everything is delivered without a restart. Nothing that is said anywhere holds a secret."""
    right = "sesame-open-up"
    with servers.influxdb(tmp_path / "influxdb", user=("jo", right)) as server:
        with pushing(server.url, "locked") as nobody:
            nobody.write(batch_of(many(1)))
            servers.wait(nobody.problem, "the answer is noticed")
            assert "answered 401" in (said := nobody.problem() or "") and "asks for a user: --influxdb-user" in said
            nobody.close(0)
        more: dict[str, Any] = {"influxdb_user": "jo", "influxdb_password": token, "push_interval": 0.01}
        with pushing(server.url, "locked", **more) as exporter:
            exporter.write(batch_of(many(100)))
            servers.wait(exporter.problem, "the answer is noticed")
            said = exporter.problem() or ""
            assert "answered 401 (authorization failed): it does not accept user jo" in said
            pathlib.Path(token).write_text(right)
            assert settled(exporter).delivered == 200
            servers.wait(lambda: exporter.problem() is None, "the problem is over")
            # rotated once more, and said by SIGHUP before the server would
            server.query("SET PASSWORD FOR jo = 'third'")
            server.user = ("jo", "third")
            pathlib.Path(token).write_text("third")
            exporter.reopen()
            exporter.write(batch_of(many(100)))
            assert settled(exporter).delivered == server.stored("locked") == 400
    output = "".join([caplog.text, said, *capfd.readouterr()])
    assert (
        SECRET not in output and right not in output and base64.b64encode(f"jo:{right}".encode()).decode() not in output
    )


def test_a_server_that_repeats_the_secret(token: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that puts our token into its answer does not get it into a log or /readyz."""
    more: dict[str, Any] = {"influxdb_version": "3", "influxdb_token": token, "push_interval": 0.01}
    with (
        faulty(say(403, {"error": f"no rights for {SECRET}"}), say(204)) as server,
        pushing(server.url, **more) as exporter,
    ):
        exporter.write(batch_of(many(1)))
        assert settled(exporter).delivered == 2
    assert "answered 403 (no rights for ***): it does not let us write there" in caplog.text
    assert SECRET not in caplog.text


def test_user_who_may_only_write(tmp_path: pathlib.Path, token: str) -> None:
    """A user who may write and may not make a database delivers into one that is there; one who may do neither is a
    problem that says so."""
    more: dict[str, Any] = {"influxdb_user": "low", "influxdb_password": token, "push_interval": 0.01}
    with servers.influxdb(tmp_path / "influxdb", user=("root", "pw")) as server:
        for query in ("CREATE DATABASE mine", f"CREATE USER low WITH PASSWORD '{SECRET}'"):
            server.query(query)
        with pushing(server.url, "mine", **more) as exporter:
            exporter.write(batch_of(many(5)))
            servers.wait(exporter.problem, "the answer is noticed")
            assert 'answered 403 ("low" user is not authorized to write' in (exporter.problem() or "")
            server.query("GRANT WRITE ON mine TO low")
            assert settled(exporter).delivered == 10
        assert server.stored("mine") == 10


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[servers.InfluxServer]:
    """A real server that speaks TLS."""
    tls = (authority.certificate("right"), authority.file)
    with servers.influxdb(tmp_path_factory.mktemp("secure"), tls=tls) as running:
        yield running


def test_certificate_of_a_known_authority(secure: servers.InfluxServer, authority: Authority) -> None:
    """A real server over TLS, whose certificate is vouched for by the given authority, gets every point."""
    with pushing(secure.url, "secure", influxdb_ca=str(authority.file), influxdb_gzip=True) as exporter:
        for i in range(5):
            exporter.write(batch_of(many(1000, 10**18 + 10**6 * i)))
        assert settled(exporter).delivered == secure.stored("secure") == 10_000


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for others."""
    return Authority(tmp_path_factory.mktemp("others"), "others")


@pytest.mark.parametrize(
    ("of", "days", "trusted", "said"),
    [
        ("IP:127.0.0.1", 2, False, "is not accepted (unable to get local issuer certificate"),
        ("DNS:db.example.net", 2, True, "is not accepted (IP address mismatch"),
        ("IP:127.0.0.1", -1, True, "is not accepted (certificate has expired"),
    ],
)
def test_certificates_that_are_refused(
    authority: Authority, others: Authority, of: str, days: int, trusted: bool, said: str
) -> None:
    """An unknown authority, another's name and an expired certificate are refused, and said; nothing is sent there."""
    certificate = authority.certificate("wrong", of=of, days=days)
    vouching = authority if trusted else others
    with faulty(say(204), tls=tls_of(certificate)) as server:
        exporter = InfluxDB(Config(influxdb=server.url, influxdb_ca=str(vouching.file), push_interval=0.01))
        exporter.write(batch_of(many(1)))
        servers.wait(lambda: said in (exporter.problem() or ""), "the certificate is noticed")
        exporter.close(0.1)
    assert (server.requests, exporter.counts().lost["closed"]) == ([], 2)


def test_certificates_that_are_replaced(tmp_path: pathlib.Path, authority: Authority, others: Authority) -> None:
    """A file of certificates that holds the right one later is read again."""
    trusted = tmp_path / "ca.pem"
    shutil.copy(others.file, trusted)
    with (
        faulty(say(204), tls=tls_of(authority.certificate("later"))) as server,
        pushing(server.url, influxdb_ca=str(trusted), push_interval=0.01) as exporter,
    ):
        exporter.write(batch_of(many(1)))
        servers.wait(exporter.problem, "the certificate is noticed")
        shutil.copy(authority.file, trusted)
        assert settled(exporter).delivered == 2


def test_http_and_https_mistaken_for_each_other(
    secure: servers.InfluxServer, tmp_path: pathlib.Path, authority: Authority
) -> None:
    """Who says http:// to a server that speaks TLS, or https:// to one that does not, is told so, and keeps all."""
    with servers.influxdb(tmp_path / "influxdb") as plain:
        ways: list[tuple[str, dict[str, Any], str]] = [
            (secure.url.replace("https:", "http:"), {}, "begins with https://"),
            (plain.url.replace("http:", "https:"), {"influxdb_ca": str(authority.file)}, "begins with http://"),
        ]
        for url, more, said in ways:
            with pushing(url, "mistaken", push_interval=0.01, **more) as exporter:
                exporter.write(batch_of(many(1)))
                problem = servers.wait(exporter.problem, "the mistake is noticed") or ""
                assert exporter.counts().buffered == 2
                exporter.close(0)
            assert said in problem, problem


# --- how long to wait -------------------------------------------------------------------------------------------------


def test_retry_after() -> None:
    """Seconds or a date; a date that is past, and what is neither, is no wait."""
    assert [retry_after(text) for text in ("7", " 0 ", "", "soon", "-3", "1.5")] == [7, 0, 0, 0, 0, 0]
    assert retry_after("9" * 50) < 1e9
    assert retry_after("Fri, 01 Jan 99999999999999999999 00:00:00 GMT") == 0
    assert retry_after("Mon, 01 Jan 0001 00:00:00 +2359") == retry_after("Mon, 01 Jan 2024 00:00:00 +9999999999") == 0
    assert 50 < retry_after(formatdate(usegmt=True).replace("GMT", "-0001")) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert logging.getLogger("intcollector").isEnabledFor(logging.WARNING)
