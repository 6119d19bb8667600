"""The store key behind a PKCS#11 token: a hardware security module, a smart card, SoftHSM.

The token's AES-256 key never leaves it (sensitive, not extractable). It seals the store key by CKM_AES_GCM into a file
beside the store (`brokerkm.storekey.wrapped`), and reading the store key has the token open that. So a
stolen disk is of no use, while the store itself is sealed by ordinary software, at its speed: a token takes
milliseconds for what is done thousands of times a second here.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from brokerkm.errors import StoreError, UsageError
from brokerkm.storekey.file import read_private
from brokerkm.storekey.source import KEY_SIZE, wipe
from brokerkm.storekey.uri import TokenUri
from brokerkm.storekey.wrapped import NONCE_SIZE, WrappedKey

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from pkcs11 import Session

_MAX_PIN: Final = 256  # bytes
_ADVICE: Final = {
    "PinIncorrect": "the PIN is wrong: correct the file before the token locks itself",
    "PinLocked": "the PIN is locked after too many wrong ones: unlock it with the token's own tool",
    "PinExpired": "the PIN has expired: set a new one with the token's own tool",
    "PinInvalid": "the PIN has characters that the token does not take",
    "PinLenRange": "the PIN is too short or too long for the token",
    "UserPinNotInitialized": "it has no user PIN yet: set one with the token's own tool",
    "NoSuchToken": "there is no token of that label: is it plugged in, and is the module configured for this user?",
    "TokenNotPresent": "the token is not plugged in",
    "DeviceRemoved": "the token was removed",
    "MultipleTokensReturned": "several tokens have that label: give one of them another",
    "NoSuchKey": "the token holds no AES key of that label: `brokerkm store key new pkcs11:...` makes it",
    "MultipleObjectsReturned": "the token holds several keys of that label: delete or rename all but one",
    "MechanismInvalid": "the token has no CKM_AES_GCM: another one is needed",
    "MechanismParamInvalid": "the token does not take CKM_AES_GCM with a nonce of ours: another one is needed",
    "TokenWriteProtected": "the token is write-protected",
}


class TokenKey:
    """The store key that the token named by a URI unwraps.

    Args:
        text: the URI, without its ``pkcs11:``.
        directory: the store's, where the wrapped key lies.
    """

    def __init__(self, text: str, directory: Path) -> None:
        self._uri: Final = TokenUri.parse(text)
        self._directory: Final = directory

    def __repr__(self) -> str:
        return f"TokenKey({self._uri})"

    @property
    def place(self) -> Path:
        """The file of the wrapped key."""
        return WrappedKey.place(self._directory, self._uri.token, self._uri.label)

    def read(self) -> bytes:
        """Have the token unwrap the key."""
        if not self.place.exists():
            message = (
                f"wrapped store key {self.place}: it is not there: a new store has one made by `brokerkm store key new "
                "pkcs11:...`; a store that was sealed needs its old one, from a backup of the directory"
            )
            raise StoreError(message)
        wrapped = WrappedKey.read(self.place)
        with self._session(write=False) as session:
            key = self._key(session)
            try:
                return bytes(key.decrypt(wrapped.sealed, **self._mechanism(wrapped.nonce)))
            except Exception as error:
                if type(error).__name__ not in _WRONG_KEY:
                    raise
                message = f"{self._uri}: it does not open {self.place}: another key made that, or the file was changed"
                raise StoreError(message) from None

    def create(self) -> None:
        """Make the AES key in the token, unless it is there, and a store key wrapped by it, unless there is one."""
        if self.place.exists():
            message = f"wrapped store key {self.place}: there is one already, and a store may need it"
            raise UsageError(message)
        import pkcs11  # noqa: PLC0415 - an extra; `_session` says so

        with self._session(write=True) as session:
            try:
                key = self._key(session)
            except pkcs11.NoSuchKey:
                key = self._new_key(session)
            nonce = secrets.token_bytes(NONCE_SIZE)
            store_key = secrets.token_bytes(KEY_SIZE)
            sealed = bytes(key.encrypt(store_key, **self._mechanism(nonce)))
        WrappedKey(self._uri.token, self._uri.label, nonce, sealed).write(self.place)

    def _key(self, session: Session) -> Any:  # noqa: ANN401 - what it can do depends on the token
        import pkcs11  # noqa: PLC0415 - as above

        return session.get_key(
            object_class=pkcs11.ObjectClass.SECRET_KEY, key_type=pkcs11.KeyType.AES, label=self._uri.label
        )

    def _new_key(self, session: Session) -> Any:  # noqa: ANN401 - as above
        import pkcs11  # noqa: PLC0415 - as above

        return session.generate_key(
            pkcs11.KeyType.AES,
            8 * KEY_SIZE,
            label=self._uri.label,
            store=True,
            capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
            template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
        )

    def _mechanism(self, nonce: bytes) -> dict[str, Any]:
        import pkcs11  # noqa: PLC0415 - as above

        bound = WrappedKey.associated(self._uri.token, self._uri.label)
        return {"mechanism": pkcs11.Mechanism.AES_GCM, "mechanism_param": pkcs11.GCMParams(nonce, bound)}

    @contextlib.contextmanager
    def _session(self, *, write: bool) -> Generator[Session]:
        """Log in to the token; what it refuses becomes a `StoreError` that says what to do."""
        try:
            import pkcs11  # noqa: PLC0415 - an extra
        except ImportError:
            message = "a PKCS#11 token needs: pip install 'brokerkm[pkcs11]'"
            raise UsageError(message) from None
        pin = read_private(self._uri.pin, _MAX_PIN)
        try:
            module = pkcs11.lib(str(self._uri.module))
            token = module.get_token(token_label=self._uri.token)
            with token.open(rw=write, user_pin=pin.decode().rstrip("\r\n")) as session:
                yield session
        except (pkcs11.PKCS11Error, RuntimeError, UnicodeDecodeError) as error:
            name = type(error).__name__
            advice = _ADVICE.get(name) or f"PKCS#11 module {self._uri.module}: {error or name}"
            message = f"{self._uri}: {advice}"
            raise StoreError(message) from error
        finally:
            wipe(pin)


_WRONG_KEY: Final = frozenset({"EncryptedDataInvalid", "EncryptedDataLenRange", "GeneralError", "DataInvalid"})
"""What modules say if a GCM tag does not fit; SoftHSM says the third."""
