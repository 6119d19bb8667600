"""The store key from files, credentials, the environment and commands."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey import open_source
from brokerkm.storekey.command import CommandKey
from brokerkm.storekey.source import parse_key

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Return `path` with that content and mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\r\n", b" " + KEY.hex().encode() + b"\n"]
)
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_file_holds_raw_bytes_or_digits(tmp_path: Path, content: bytes, mode: int) -> None:
    """Both forms and both modes are read."""
    written(tmp_path / "key", content, mode)
    assert KEY == open_source("file:key", tmp_path).read()
    assert KEY == open_source(f"file:{tmp_path / 'key'}", "/").read()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        KEY[:31],
        KEY + b"\n",
        KEY.hex().encode()[:-1],
        b"zz" + KEY.hex().encode()[2:],
        b"a" * 100_000,
        "é".encode() * 32,
    ],
)
def test_file_with_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error says what a key looks like, and shows nothing of what is there."""
    written(tmp_path / "key", content)
    with pytest.raises(StoreError, match="32 raw bytes or 64 hexadecimal digits") as caught:
        open_source("file:key", tmp_path).read()
    assert "aaaa" not in str(caught.value)
    assert KEY.hex()[2:60] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Reading and writing by others are both trouble."""
    written(tmp_path / "key", KEY, mode)
    with pytest.raises(StoreError, match=f"mode {mode:04o}.*chmod 600"):
        open_source("file:key", tmp_path).read()


def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Who owns it can change it."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(written(tmp_path / "key", KEY), 65534, 0)
    with pytest.raises(StoreError, match="belongs to user 65534"):
        open_source("file:key", tmp_path).read()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe that nobody writes to does not make us wait; a directory and nothing at all are named."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    for name, text in (
        ("pipe", "no regular file"),
        ("directory", "no regular file"),
        ("absent", "brokerkm store key new"),
    ):
        with pytest.raises(StoreError, match=text):
            open_source(f"file:{name}", tmp_path).read()


def test_new_file_is_private_and_stays(tmp_path: Path) -> None:
    """A key is made once, for its owner alone, even if files are usually open to all."""
    source = open_source("file:key", tmp_path)
    before = os.umask(0)
    try:
        source.create()
    finally:
        os.umask(before)
    key = source.read()
    assert (32, 0o100600) == (len(key), (tmp_path / "key").stat().st_mode)
    with pytest.raises(UsageError, match="there is one already"):
        source.create()
    assert key == source.read()
    with pytest.raises(StoreError, match="check that its directory exists"):
        open_source("file:absent/key", tmp_path).create()


def test_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that cannot be made durable is removed."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        open_source("file:key", tmp_path).create()
    assert [] == list(tmp_path.iterdir())


def test_credential_is_read_from_systemds_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group bits are the mask of an access list; the world must be out."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    written(tmp_path / "store-key", KEY, 0o440)
    source = open_source("credential:store-key")
    assert (KEY, "CredentialKey('store-key')") == (source.read(), repr(source))
    written(tmp_path / "store-key", KEY, 0o444)
    with pytest.raises(StoreError, match="others may read it"):
        source.read()
    with pytest.raises(StoreError, match="not among those of this service"):
        open_source("credential:absent").read()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(StoreError, match=r"systemd-run .* LoadCredential=store-key:FILE brokerkm"):
        source.read()
    with pytest.raises(UsageError, match="systemd-creds encrypt --name=store-key"):
        source.create()
    for name in ("../etc/shadow", "/etc/shadow", ".."):
        with pytest.raises(UsageError, match="without a directory"):
            open_source(f"credential:{name}")


def test_variable_is_gone_once_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child process inherits the key."""
    monkeypatch.setenv("STORE_KEY", KEY.hex())
    source = open_source("env:STORE_KEY")
    assert (KEY, "EnvironmentKey('STORE_KEY')") == (source.read(), repr(source))
    assert "STORE_KEY" not in os.environ
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ.get('STORE_KEY'))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "None\n" == child.stdout
    with pytest.raises(StoreError, match="not set, or was read already"):
        source.read()
    with pytest.raises(UsageError, match="openssl rand -hex 32"):
        source.create()
    with pytest.raises(UsageError, match="not its value"):
        open_source(f"env:STORE_KEY={KEY.hex()}")


def test_wrong_variable_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly a key is still a secret."""
    monkeypatch.setenv("STORE_KEY", KEY.hex() + "0")
    with pytest.raises(StoreError, match=r"holds 65 bytes") as caught:
        open_source("env:STORE_KEY").read()
    assert KEY.hex() not in str(caught.value)
    assert "STORE_KEY" not in os.environ


def script(tmp_path: Path, text: str) -> str:
    """Return the spec of a command that runs a Python script."""
    (tmp_path / "tell key.py").write_text(text)
    return f"command:{sys.executable} '{tmp_path / 'tell key.py'}' --secret"


@pytest.mark.parametrize("text", [f"print('{KEY.hex()}')", f"import os; os.write(1, bytes.fromhex('{KEY.hex()}'))"])
def test_command_prints_the_key(tmp_path: Path, text: str) -> None:
    """Digits or bytes; words are split as a shell does, and `repr` shows no argument."""
    source = open_source(script(tmp_path, text))
    assert (KEY, f"CommandKey({sys.executable!r})") == (source.read(), repr(source))
    with pytest.raises(UsageError, match="made where it takes it from"):
        source.create()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise SystemExit('vault is sealed\\x1b[31m')", r"failed with status 1; it says: vault is sealed \[31m"),
        ("import sys; sys.stdout.write('x' * 10**7)", "prints more than"),
        ("print('nothing')", "no store key"),
        ("pass", "holds 0 bytes"),
        ("import os; os.kill(os.getpid(), 9)", "failed with status -9"),
        (
            "import sys; sys.stdin.read(); sys.stderr.write('e' * 10**6); sys.exit(3)",
            "failed with status 3; it says: e{2001}$",
        ),
    ],
)
def test_command_that_fails_is_told(tmp_path: Path, text: str, told: str) -> None:
    """Its own words are shown, without orders to a terminal and not without bound; its arguments are not."""
    with pytest.raises(StoreError, match=told) as caught:
        open_source(script(tmp_path, text)).read()
    assert "--secret" not in str(caught.value)


def test_command_that_fails_after_printing_is_not_believed(tmp_path: Path) -> None:
    """A key that came with a failure is none."""
    with pytest.raises(StoreError, match="failed with status 4") as caught:
        open_source(script(tmp_path, f"import sys; print('{KEY.hex()}', flush=True); sys.exit(4)")).read()
    assert KEY.hex() not in str(caught.value)


def test_words_of_a_command_that_succeeds_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning of the secret manager reaches the operator."""
    with caplog.at_level(logging.WARNING):
        open_source(
            script(tmp_path, f"import sys; print('{KEY.hex()}'); print('expires soon', file=sys.stderr)")
        ).read()
    assert "says: expires soon" in caplog.text
    assert KEY.hex() not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "import time; time.sleep(60)",
        "import sys, itertools\nfor n in itertools.count(): sys.stderr.write('.' * 4096)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
    ],
)
def test_command_that_does_not_end_is_ended(tmp_path: Path, text: str) -> None:
    """Sleeping, talking, hiding or leaving a child behind: it has its time and no more, and nothing is left of it."""
    (tmp_path / "slow.py").write_text(
        f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{text}"
    )
    begun = time.monotonic()
    with pytest.raises(StoreError, match="took longer than 1 s"):
        CommandKey(f"{sys.executable} '{tmp_path / 'slow.py'}'", patience=1.0).read()
    assert time.monotonic() - begun < 10
    assert is_gone(int((tmp_path / "pid").read_text()))


def is_gone(group: int) -> bool:
    """Return whether a process group ends within seconds: whoever adopts orphans here has to bury them."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_command_that_cannot_be_started_is_named() -> None:
    """A missing program and a quote that does not end are told before anything runs."""
    with pytest.raises(StoreError, match="command absent-program: No such file"):
        open_source("command:absent-program x").read()
    with pytest.raises(UsageError, match="cannot be split into words"):
        open_source("command:'open")
    with pytest.raises(StoreError, match=r"Permission denied|Is a directory"):
        open_source("command:/etc").read()


@pytest.mark.parametrize("spec", ["", "file", "file:", "file: ", KEY.hex(), "https://x", ":x", "FILE:x"])
def test_unknown_source_is_refused(spec: str) -> None:
    """The sources are named, and a key given by mistake is not repeated."""
    with pytest.raises(UsageError, match=r"file:.*, credential:.*, env:.*, command:.*, pkcs11:") as caught:
        open_source(spec)
    assert KEY.hex() not in str(caught.value)


def test_parsed_buffer_is_zeroed() -> None:
    """What was read into holds nothing afterwards, whether it was a key or not."""
    for content in (KEY, KEY.hex().encode(), b"no key"):
        buffer = bytearray(content)
        try:
            parse_key(buffer, "it")
        except StoreError:
            assert b"no key" == content
        assert bytes(len(content)) == buffer
