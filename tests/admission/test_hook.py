"""What the hook is asked and which answers count: a real server on a socket, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from admission.authority import DAY, PEM, Authority
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from brokerkm.admission import hook
from brokerkm.admission.certificates import Verified
from brokerkm.admission.hook import MAX_OPEN, Hook, HookError, HookSettings
from brokerkm.admission.lookup import MAX_HANGING, Lookups
from brokerkm.admission.rules import Applicant, Proof
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

SHOWN = Verified(frozenset({"pump"}), b"\x01" * 32, 1_800_000_000_000, "CN=pump", "CN=root")
PUMP = Applicant("plant", "pump", b"\x05" * 32, Proof.CERTIFICATE, certificate=SHOWN)
VALVE = Applicant("plant", "valve", b"\x06" * 32, Proof.TOKEN, b"\x07" * 8)
YES = b'HTTP/1.1 200 OK\r\n\r\n{"allow": true}'
NO = b'HTTP/1.0 200 OK\r\nContent-Length: 16\r\n\r\n{"allow": false}'


class Inventory:
    """A server that notes what it is asked and gives one answer."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer  # None: it says nothing
        self.questions: list[bytes] = []
        self.asked = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
            self.questions.append(head + await reader.readexactly(length))
            self.asked.set()
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        writer.close()

    def ask(self, **settings: object) -> Hook:
        """Return the hook that asks this one."""
        return Hook(HookSettings(self.url, **settings), lambda: 1_790_000_000.9)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def inventory(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Inventory]:
    """Start one on a free port."""
    found = Inventory(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    found.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/admit?to=plant"
    async with server:
        yield found


async def test_what_it_is_asked(tmp_path: Path) -> None:
    """Who wants to join, and by what; signed with the secret, the time included."""
    (tmp_path / "key").write_text("s3cret\n")
    (tmp_path / "key").chmod(0o600)
    async with inventory(YES) as found:
        assert await found.ask(secret=f"file:{tmp_path / 'key'}").allows(PUMP)
    head, _, body = found.questions[0].partition(b"\r\n\r\n")
    expected = {
        "group": "plant",
        "member": "pump",
        "proof": "certificate",
        "identity": "05" * 32,
        "returning": "no",
        "certificate": {"subject": "CN=pump", "issuer": "CN=root", "sha256": "01" * 32, "expires": 1_800_000_000},
    }
    assert expected == json.loads(body)
    lines = head.decode().split("\r\n")
    assert "POST /admit?to=plant HTTP/1.0" == lines[0]
    signature = hmac.new(b"s3cret", b"1790000000." + body, hashlib.sha256).hexdigest()
    assert {"Brokerkm-Time: 1790000000", f"Brokerkm-Signature: sha256={signature}"} <= set(lines)


async def test_no() -> None:
    """A no is an answer; without a secret nothing is signed."""
    async with inventory(NO) as found:
        assert not await found.ask().allows(VALVE)
    assert b"Signature" not in found.questions[0]
    assert "07" * 8 == json.loads(found.questions[0].partition(b"\r\n\r\n")[2])["token"]


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"", "it answered b''"),
        (b"SSH-2.0-OpenSSH\r\n", "it answered b'SSH"),
        (b'HTTP/1.1 201 Created\r\n\r\n{"allow": true}', "201"),
        (b'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/yes\r\n\r\n{"allow": true}', "302"),
        (b'HTTP/1.1 500 Oops\r\n\r\n{"allow": true}', "500"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"allow": true}', "its answer was cut off"),
        (b"HTTP/1.1 200 OK\r\n\r\nyes", "JSONDecodeError"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xff", "UnicodeDecodeError"),
        (b"HTTP/1.1 200 OK\r\n\r\ntrue", "its answer is not"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"allow": "true"}', "its answer is not"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"allow": 1}', "its answer is not"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"allow": true}' + b" " * 9000, "more than 8192 bytes"),
    ],
)
async def test_no_answer_that_counts(answer: bytes, match: str) -> None:
    """Only a clear yes is a yes, and an error is not kept."""
    async with inventory(answer) as found:
        hook = found.ask()
        with pytest.raises(HookError, match=match):
            await hook.allows(PUMP)
        found.answer = YES
        assert await hook.allows(PUMP)


async def test_silence() -> None:
    """It is not waited for without end, nor is a port where nobody listens a yes."""
    async with inventory(None) as found:
        hook = found.ask(timeout=0.2)
        with pytest.raises(HookError, match="no answer within"):
            await hook.allows(PUMP)
    with pytest.raises(HookError, match="Connect"):
        await hook.allows(PUMP)


async def test_answers_are_kept_for_a_while() -> None:
    """The same applicant is not asked about twice; another one is."""
    async with inventory(YES) as found:
        hook = found.ask(cache=60.0)
        assert await hook.allows(PUMP)
        found.answer = NO
        assert await hook.allows(PUMP)
        assert not await hook.allows(VALVE)
        assert 2 == len(found.questions)
        assert not await found.ask(cache=0.0).allows(PUMP)


async def test_few_questions_at_once() -> None:
    """Beyond them nobody is asked: what waits is bounded."""
    async with inventory(None) as found:
        hook = found.ask(timeout=30.0)
        asked = [
            asyncio.create_task(hook.allows(Applicant("plant", f"m{number}", bytes(32), Proof.KEY)))
            for number in range(MAX_OPEN)
        ]
        async with asyncio.timeout(10):
            await found.asked.wait()
        with pytest.raises(HookError, match="32 questions are open already"):
            await hook.allows(PUMP)
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        found.answer = YES
        assert await hook.allows(PUMP), "a question that was given up leaves room for another"


async def test_over_tls(tmp_path: Path) -> None:
    """The hook has to show a certificate of the authority that is configured, for its own name."""
    at = dt.datetime.now(dt.UTC)
    key_id = [(x509.SubjectKeyIdentifier(b"r" * 20), False)]
    root = Authority(valid=(at - DAY, at + DAY))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    server = root.device("hook", names=[address], extensions=key_id, valid=(at - DAY, at + DAY))
    (tmp_path / "ca.pem").write_bytes(root.pem)
    (tmp_path / "hook.pem").write_bytes(
        server.certificate.public_bytes(PEM)
        + server.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "hook.pem")
    async with inventory(YES, tls) as found:
        assert await found.ask(authorities=str(tmp_path / "ca.pem")).allows(PUMP)
        with pytest.raises(HookError, match="certificate verify failed"):
            await found.ask().allows(PUMP)


def test_a_secret_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told when the hook is made, not when the first device comes."""
    monkeypatch.delenv("NO_HOOK", raising=False)
    with pytest.raises(UsageError, match="env:NO_HOOK"):
        Hook(HookSettings("http://localhost", "env:NO_HOOK"))


@pytest.mark.parametrize("content", [None, "nothing"])
def test_authorities_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """So it is with the file of those who certify the hook."""
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(UsageError, match=r"ca\.pem: "):
        Hook(HookSettings("https://localhost", authorities=str(tmp_path / "ca.pem")))


async def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is told to try later; nothing else has to wait, and few threads hang."""
    hanging, lookups = threading.Event(), Lookups()
    monkeypatch.setattr(hook, "LOOKUPS", lookups)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: hanging.wait(60) and [])
    asked = Hook(HookSettings("http://inventory.example/admit", timeout=0.2))
    before = threading.active_count()
    try:
        for _ in range(MAX_HANGING + 2):
            with pytest.raises(HookError, match=r"no answer within|names are being looked up already"):
                await asked.allows(PUMP)
        assert MAX_HANGING == threading.active_count() - before
        async with asyncio.timeout(5):
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(100)))
    finally:
        hanging.set()
    async with asyncio.timeout(5):
        while lookups._under_way:  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)
    with pytest.raises(HookError, match="has no address"):
        await asked.allows(PUMP)
