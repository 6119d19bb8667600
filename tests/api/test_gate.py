"""Who gets in: users, tokens, certificates, roles; and what is turned away before a route sees it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from api.certificates import Authority
from api.running import run

from brokerkm.api import Remote, RemoteAdmin, peer
from brokerkm.api.app import _ROUTES
from brokerkm.api.gate import MAX_BODY, Limits
from brokerkm.errors import TransportError, UsageError
from brokerkm.service.credentials import Role

if TYPE_CHECKING:
    from pathlib import Path

    from api.running import Running

ROUTES = [
    (str(route.operation_id), method, f"/v1{path}", route.opt["role"])
    for route in _ROUTES
    for method in route.http_methods
    if method != "OPTIONS"
    for path in route.paths
]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("operation", "method", "path", "needed"), ROUTES, ids=[route[0] for route in ROUTES])
def test_each_role_reaches_its_routes(  # noqa: PLR0917 - parameters
    running: Running, operation: str, method: str, path: str, needed: Role, role: Role
) -> None:
    """A role that a route does not cover is refused before the body is looked at; one that covers it is not."""
    if operation == "followEvents" and role.covers(needed):
        return  # it would not end; the client's tests follow it
    names = {"{group:str}": "none", "{member:str}": "none", "{token:str}": "00" * 8, "{name:str}": "none"}
    for name, value in names.items():
        path = path.replace(name, value)
    answer = running.ask(method, path, b"[", token=running.tokens[role.value])
    assert (403 == answer.status) == (not role.covers(needed)), answer
    assert 401 != answer.status
    assert answer.status < 500


@pytest.mark.parametrize("path", ["/v1/status", "/v1/groups", "/openapi.json", "/nothing", "/schema"])
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", "Bearer bka1_test-admin." + "A" * 43, "Basic dTpw", "Bearer \xff"]
)
def test_who_has_no_valid_token_gets_nothing(running: Running, path: str, header: str) -> None:
    """Without a token, or with a wrong one, every path looks the same."""
    context = ssl.create_default_context(cafile=running.authority.path)
    with (
        socket.create_connection(("127.0.0.1", running.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        line = f"Authorization: {header}\r\n" if header else ""
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{line}Connection: close\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"application/problem+json" in answer
    assert b"www-authenticate: Bearer" in answer


def test_a_revoked_token_is_void_at_once(running: Running) -> None:
    """So is one whose time is over."""
    admin = running.tokens["admin"]
    made = running.ask("POST", "/v1/credentials", {"name": "short", "role": "viewer"}, token=admin)
    assert 201 == made.status
    assert 200 == running.ask("GET", "/v1/status", token=made.value["token"]).status
    assert 204 == running.ask("DELETE", "/v1/credentials/short", token=admin).status
    assert 401 == running.ask("GET", "/v1/status", token=made.value["token"]).status


def test_an_expired_token_is_void(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock decides."""
    made = running.ask("POST", "/v1/credentials", {"name": "brief", "role": "viewer", "lifetime": 60})
    now = running.server.clock()
    monkeypatch.setattr(running.server, "clock", lambda: now + 59)
    assert 200 == running.ask("GET", "/v1/status", token=made.value["token"]).status
    monkeypatch.setattr(running.server, "clock", lambda: now + 61)
    assert 401 == running.ask("GET", "/v1/status", token=made.value["token"]).status


def test_secrets_are_nowhere(running: Running) -> None:
    """The store has no token, the list shows none, a repr hides it."""
    made = running.ask("POST", "/v1/credentials", {"name": "shown-once", "role": "viewer"}).value
    secret = made["token"].rpartition(".")[2]
    for kind in ("credential", "answer"):
        assert all(secret.encode() not in one.body for one in running.server.store.documents("", kind))
    assert secret not in json.dumps(running.ask("GET", "/v1/credentials").value)


def test_certificates_have_roles(running: Running) -> None:
    """A common name with a role gets in; another of the same CA does not; a token counts more than either."""
    console, stranger = running.authority.issue("console"), running.authority.issue("stranger")
    assert 200 == running.ask("GET", "/v1/status", certificate=console).status
    assert 403 == running.ask("GET", "/v1/credentials", certificate=console).status
    assert 401 == running.ask("GET", "/v1/status", certificate=stranger).status
    assert 200 == running.ask("GET", "/v1/credentials", certificate=stranger, token=running.tokens["admin"]).status


def test_certificates_of_others_are_refused(running: Running, tmp_path: Path) -> None:
    """A certificate of a CA that the server does not know does not get through the handshake."""
    foreign = Authority(tmp_path, "foreign").issue("console")
    with pytest.raises((ssl.SSLError, ConnectionError, BrokenPipeError)):
        running.ask("GET", "/v1/status", certificate=foreign)


async def test_the_client_asks_over_tls(running: Running, tmp_path: Path) -> None:
    """With the token from a file; a server that it does not trust is not asked."""
    file = tmp_path / "token"
    file.write_text(running.tokens["viewer"] + "\n")
    admin = await RemoteAdmin.reach(Remote.from_files(running.url, file, running.authority.path))
    assert "none" == (await admin.status()).broker
    with pytest.raises(UsageError, match="this needs the role admin; token:test-viewer has the role viewer"):
        await admin.list_credentials()
    await admin.close()
    with pytest.raises(TransportError, match="TLS with the key server at"):
        await RemoteAdmin.reach(Remote.from_files(running.url, file))
    for url in ("http://x", "https://", "https://x/path", "mqtt://x"):
        with pytest.raises(UsageError, match="https://HOST:PORT"):
            Remote.from_files(url)
    file.write_text("two words")
    with pytest.raises(UsageError, match="one token"):
        Remote.from_files(running.url, file)


def test_other_users_are_turned_away(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says who is at the other end of the socket, and no token helps a stranger there."""
    assert 200 == running.ask("GET", "/v1/status").status

    class Foreign:
        size = peer._CREDENTIALS.size

        def unpack(self, _data: bytes) -> tuple[int, int, int]:
            return 1, 12345, 12345

    monkeypatch.setattr(peer, "_CREDENTIALS", Foreign())
    token = f"Bearer {running.tokens['admin']}"
    for headers in ({}, {"authorization": token}):
        answer = running.ask("GET", "/v1/status", **headers)
        assert (403, "urn:brokerkm:problem:forbidden") == (answer.status, answer.value["type"])


def test_too_many_requests_are_told_to_wait(tmp_path: Path, authority: Authority) -> None:
    """One credential beyond its limit does not keep others out."""
    with run(tmp_path, authority, Limits(credential=(0.001, 3), peer=(1e6, 1e6))) as running:
        statuses = [running.ask("GET", "/v1/status", token=running.tokens["viewer"]).status for _ in range(4)]
        assert [200, 200, 200, 429] == statuses
        answer = running.ask("GET", "/v1/status", token=running.tokens["viewer"])
        assert "1" == answer.headers["retry-after"]
        assert 200 == running.ask("GET", "/v1/status", token=running.tokens["operator"]).status
    with run(tmp_path, authority, Limits(credential=(1e6, 1e6), peer=(0.001, 2))) as running:
        answers = [running.ask("GET", "/v1/status", token="bka1_guess." + "A" * 43) for _ in range(3)]
        assert [401, 401, 429] == [answer.status for answer in answers]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "kind"),
    [
        ("GET", "/v1/nothing", None, {}, 404, "no-such-route"),
        ("GET", "/", None, {}, 404, "no-such-route"),
        ("GET", "/v1/groups/none", None, {}, 404, "unknown-name"),
        ("PUT", "/v1/groups", {}, {}, 405, "wrong-method"),
        ("GET", "/v1/groups?limit=0", None, {}, 422, "invalid"),
        ("GET", "/v1/groups?limt=1", None, {}, 422, "invalid"),
        ("GET", "/v1/groups/%2e%2e%2f", None, {}, 404, "unknown-name"),
        ("GET", "/v1/groups/%20", None, {}, 422, "invalid"),
        ("POST", "/v1/groups", b"{", {}, 400, "malformed"),
        ("POST", "/v1/groups", b"", {}, 422, "invalid"),
        ("POST", "/v1/groups", b"\xff\xfe", {}, 400, "malformed"),
        ("POST", "/v1/groups", b"[" * 100_000, {}, 400, "malformed"),
        ("POST", "/v1/groups", {"name": "x", "degre": 2}, {}, 422, "invalid"),
        ("POST", "/v1/groups", {"name": "x", "degree": 2.5}, {}, 422, "invalid"),
        ("POST", "/v1/groups", {"name": "x\n"}, {}, 409, "conflict"),
        ("POST", "/v1/groups", b" " * (MAX_BODY + 1), {}, 413, "too-large"),
        ("POST", "/v1/groups", {"name": "x"}, {"idempotency_key": "a b"}, 422, "invalid"),
        ("POST", "/v1/groups", {"name": "x"}, {"idempotency_key": "k" * 256}, 422, "invalid"),
        ("POST", "/v1/groups/plant/import", b"x,y", {"content_type": "text/plain"}, 415, "wrong-media-type"),
        ("POST", "/v1/groups/plant/import", b"x" * 9000, {"content_type": "text/csv"}, 422, "invalid"),
        ("POST", "/v1/groups/plant/evict", {}, {}, 422, "invalid"),
        ("POST", "/v1/groups/plant/evict", {"members": []}, {}, 422, "invalid"),
        ("POST", "/v1/groups/plant/evict", {"members": ["a"] * 10_001}, {}, 422, "invalid"),
    ],
)
def test_hostile_requests_get_a_problem(  # noqa: PLR0917 - parameters
    running: Running, method: str, path: str, body: object, headers: dict[str, str], status: int, kind: str
) -> None:
    """Every error is a problem that names itself, and changes nothing."""
    running.ask("POST", "/v1/groups", {"name": "plant"})
    answer = running.ask(method, path, body, **headers)
    assert (status, f"urn:brokerkm:problem:{kind}") == (answer.status, answer.value["type"]), answer
    assert "application/problem+json" == answer.headers["content-type"]
    assert status == answer.value["status"]
    assert ["plant"] == [one["name"] for one in running.ask("GET", "/v1/groups").value["items"]]


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000, b"GET /" + b"a" * 20_000],
)
def test_what_is_no_http_gets_a_problem(running: Running, data: bytes) -> None:
    """Bytes that are no request, or one with too large a head, are answered and the connection is closed."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(running.path))
        client.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"urn:brokerkm:problem:malformed" in answer


def test_an_import_reports_each_row(running: Running) -> None:
    """CSV with or without a header, JSON lines; what is wrong with a row keeps no other from being listed."""
    running.ask("POST", "/v1/groups", {"name": "depot"})
    key = "ab" * 32
    rows = f"member,identity\r\np1,{key}\r\n\r\np2,zz\np1,{key}\np 3,{key}\np4,{key},5\n\xff,{key}".encode("latin-1")
    report = running.ask("POST", "/v1/groups/depot/import", rows, content_type="text/csv").value
    assert (1, 1, 4) == (report["added"], report["unchanged"], report["refused"])
    assert [2, 4, 5, 6, 7, 8] == [row["line"] for row in report["rows"]]
    lines = b'{"member": "p5", "identity": "%s"}\n[1]\n{"member": 1, "identity": "x"}\n{' % key.encode()
    report = running.ask("POST", "/v1/groups/depot/import", lines, content_type="application/jsonl").value
    assert ["added", "refused", "refused", "refused"] == [row["result"] for row in report["rows"]]
