"""The store key behind a real PKCS#11 module: SoftHSM."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pkcs11
import pytest

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey import open_source
from brokerkm.storekey.token import TokenKey

if TYPE_CHECKING:
    from pathlib import Path

    from storekey.conftest import Token

from storekey.conftest import MODULE, PIN


def test_created_key_is_read_back(token: Token, tmp_path: Path) -> None:
    """The token unwraps what it has wrapped; the key itself is in no file."""
    source = open_source(token.uri("first"), tmp_path)
    source.create()
    key = source.read()
    assert (32, key) == (len(key), open_source(token.uri("first"), tmp_path).read())
    (file,) = tmp_path.iterdir()
    assert (0o100600, False) == (file.stat().st_mode, key.hex() in file.read_text())
    assert (PIN in repr(source), key.hex() in repr(source)) == (False, False)


def test_another_process_reads_the_same_key(token: Token, tmp_path: Path) -> None:
    """The key is in the token, not in this process's session."""
    source = open_source(token.uri("lasting"), tmp_path)
    source.create()
    script = "import sys; from brokerkm.storekey import open_source; print(open_source(*sys.argv[1:]).read().hex())"
    done = subprocess.run(
        [sys.executable, "-c", script, token.uri("lasting"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == source.read().hex()


def test_wrapping_key_does_not_leave_the_token(token: Token, tmp_path: Path) -> None:
    """It is sensitive and cannot be extracted."""
    open_source(token.uri("kept"), tmp_path).create()
    with pkcs11.lib(str(MODULE)).get_token(token_label="brokerkm").open(user_pin=PIN) as session:
        key = session.get_key(label="kept")
        assert (True, False) == (key[pkcs11.Attribute.SENSITIVE], key[pkcs11.Attribute.EXTRACTABLE])
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


def test_two_stores_share_a_token_key(token: Token, tmp_path: Path) -> None:
    """A second directory gets a store key of its own, wrapped by the same key of the token."""
    keys: list[bytes] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        source = open_source(token.uri("shared"), tmp_path / name)
        source.create()
        keys.append(source.read())
    assert keys[0] != keys[1]


def test_existing_key_is_not_replaced(token: Token, tmp_path: Path) -> None:
    """A store may need the one that is there."""
    source = open_source(token.uri("once"), tmp_path)
    source.create()
    key = source.read()
    with pytest.raises(UsageError, match="there is one already"):
        source.create()
    assert key == source.read()


def test_token_that_was_replaced_is_told(token: Token, tmp_path: Path) -> None:
    """A file that another key made does not open, and the error names it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    old, new = (TokenKey(token.uri(name).removeprefix("pkcs11:"), tmp_path / name) for name in ("a", "b"))
    old.create()
    new.create()
    old.place.rename(new.place)
    with pytest.raises(StoreError, match="another key made that, or the file was changed"):
        new.read()


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", "[" * 4000, '{"kind": "brokerkm store key"}', "\xff\xfe", "CHANGED", "SHORT"]
)
def test_damaged_file_is_named(token: Token, tmp_path: Path, content: str) -> None:
    """Whatever is in it, the error is ours."""
    source = TokenKey(token.uri("damaged").removeprefix("pkcs11:"), tmp_path)
    source.create()
    fields = json.loads(source.place.read_text())
    if content == "CHANGED":
        fields["sealed"] = bytes(48).hex()
        content = json.dumps(fields)
    elif content == "SHORT":
        fields["nonce"] = "00"
        content = json.dumps(fields)
    source.place.write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=source.place.name):
        source.read()


@pytest.mark.parametrize(
    ("key", "other", "text"),
    [
        ("k", {"token": "absent"}, "there is no token of that label"),
        ("k", {"module": "/absent.so"}, "absent.so"),
        ("k", {"pin": "/absent"}, "No such file"),
        ("k", {"pin": "WRONG"}, "the PIN is wrong"),
        ("k", {"pin": "LATIN"}, "codec can't decode"),
        ("gone", {}, "the token holds no AES key of that label"),
    ],
)
def test_refusal_says_what_to_do(token: Token, tmp_path: Path, key: str, other: dict[str, str], text: str) -> None:
    """No error of the module comes through as it is, and none shows the PIN."""
    source = TokenKey(token.uri("k").removeprefix("pkcs11:"), tmp_path)
    source.create()
    for name, content in (("WRONG", b"9999"), ("LATIN", b"\xe9")):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(content)
        other = {option: str(path) if value == name else value for option, value in other.items()}
    found = TokenKey(token.uri(key, **other).removeprefix("pkcs11:"), tmp_path)
    if found.place != source.place:
        found.place.write_bytes(source.place.read_bytes())
        found.place.chmod(0o600)
    with pytest.raises(StoreError, match=text) as caught:
        found.read()
    assert "9999" not in str(caught.value)


def test_missing_file_is_named(token: Token, tmp_path: Path) -> None:
    """A directory without the wrapped key says how a new one is made, and where an old one comes from."""
    with pytest.raises(StoreError, match=r"brokerkm store key new .* from a backup"):
        open_source(token.uri("first"), tmp_path).read()


def test_directory_that_is_absent_is_told(token: Token, tmp_path: Path) -> None:
    """The wrapped key needs a place."""
    with pytest.raises(StoreError, match="check that its directory exists"):
        open_source(token.uri("first"), tmp_path / "absent").create()


def test_missing_extra_is_named(token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-pkcs11 the command to install it is said."""
    source = open_source(token.uri("extra"), tmp_path)
    source.create()
    importing = builtins.__import__

    def without(name: str, *arguments: object, **options: object) -> object:
        if name == "pkcs11":
            raise ImportError(name)
        return importing(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'brokerkm\[pkcs11\]'"):
        source.read()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("token=a;object=b?module-path=/m", "pin-source is missing"),
        ("token=a?module-path=/m&pin-source=file:/p", "object is missing"),
        ("token=a;object=b?module-path=/m&pin-value=1234", "pin-value would show the PIN"),
        ("token=a;token=b;object=b?module-path=/m&pin-source=file:/p", "token is there twice"),
        ("token=a;object=b;serial=1?module-path=/m&pin-source=file:/p", "serial is not among"),
        ("token=a;object=b;type=private?module-path=/m&pin-source=file:/p", "type=secret-key"),
        ("token=%zz;object=b?module-path=/m&pin-source=file:/p", "token has a %"),
        ("token=%ff;object=b?module-path=/m&pin-source=file:/p", "token is not percent-encoded"),
        ("token=a;object=b?module-path=/m&pin-source=|sh", "pin-source has to be a file"),
        ("\x1b[31m=a", "what it says is not among"),
    ],
)
def test_wrong_uri_names_the_attribute(uri: str, text: str) -> None:
    """What is not heeded is not taken, and no PIN is repeated."""
    with pytest.raises(UsageError, match=text.replace("|", r"\|")) as caught:
        open_source("pkcs11:" + uri)
    assert "1234" not in str(caught.value)


def test_uri_is_percent_decoded(tmp_path: Path) -> None:
    """RFC 7512, section 2.3."""
    source = open_source(
        "pkcs11:object=a%20b;token=%C3%A9;type=secret-key?pin-source=file:///p&module-path=/m", tmp_path
    )
    assert "TokenKey(key 'a b' in token 'é')" == repr(source)
