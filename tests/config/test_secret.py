"""Secrets by reference: each source, and what is refused without showing what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.config.secret import MAX_SECRET, parse
from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def private(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Return a file with this content and mode."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_every_source_gives_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the end of its line."""
    private(tmp_path / "password", b"opensesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("THE_PASSWORD", "opensesame")
    specs = [f"file:{tmp_path}/password", "credential:password", "env:THE_PASSWORD", "command:printf 'open%s' sesame"]
    assert ["opensesame"] * 4 == [parse(spec).read() for spec in specs]


@pytest.mark.parametrize(
    "spec", ["hunter2", "", "http://x", "file:", "env:", "credential:../x", "command:'", "command:"]
)
def test_what_is_no_reference_is_refused(spec: str) -> None:
    """The text is not repeated, because it may be the secret."""
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "mode", "text"),
    [
        (b"hunter2", 0o640, "chmod 600"),
        (b"\n", 0o600, "nothing in it"),
        (b"hunter2\xff", 0o600, "not UTF-8"),
        (b"hunter2" * MAX_SECRET, 0o600, "longer than"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, data: bytes, mode: int, text: str) -> None:
    """Its content is in no message."""
    spec = f"file:{private(tmp_path / 'password', data, mode)}"
    with pytest.raises(UsageError, match=text) as caught:
        parse(spec).read()
    assert "hunter2" not in str(caught.value)
    assert text in parse(spec).missing()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("file:/absent", "No such file"),
        ("credential:absent", "LoadCredential=absent"),
        ("env:ABSENT_PASSWORD", "nothing in it"),
        ("command:false", "failed with status 1"),
        ("command:/absent/program", "No such file"),
        ("pkcs11:token=x", "holds keys, not passwords"),
    ],
)
def test_a_secret_that_is_not_there_is_said_to_be_absent(spec: str, text: str) -> None:
    """Each message says what to do, or what the system said."""
    with pytest.raises(UsageError, match=text):
        parse(spec).read()


def test_a_missing_credential_of_a_unit_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit lacks it, and the message says which line."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(UsageError, match="LoadCredential=broker-password"):
        parse("credential:broker-password").read()


def test_looking_whether_a_secret_is_there_runs_no_command(tmp_path: Path) -> None:
    """`config check` has no side effects."""
    assert "" == parse(f"command:touch {tmp_path}/ran").missing()
    assert not (tmp_path / "ran").exists()
