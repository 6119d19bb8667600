"""What the server checks of a request before it does anything lasting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core.forge import DEVICE, DEVICE_PUBLIC
from core.refusal import refused

from brokerkm.core.admission import Conduct, check_join, check_proof, check_time, conduct
from brokerkm.core.crypto import Suite
from brokerkm.core.request import Ack, Asked, Credential, Join, Leave, Sync, TokenKey
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_000_000_000
NONCE = b"n" * 16
LEAF = b"l" * 32
TOKEN = TokenKey(b"token-id", b"k" * 32)
OTHER = TokenKey(b"token-id", b"j" * 32)


def join(credential: Credential | None = None, time: int = NOW) -> Join:
    """Return a device's Join as the server reads it."""
    payload = Join.seal(DEVICE, "fleet", "m", bytes(32), credential=credential, asked=Asked(NONCE, time, 1))
    return Join.decode(payload, Suite.X25519)


@pytest.mark.parametrize("offset", [-300_000, 0, 300_000])
def test_time_within_five_minutes_is_accepted(offset: int) -> None:
    """Clocks may differ by five minutes in either direction."""
    check_time(NOW + offset, NOW, 0)


@pytest.mark.parametrize("offset", [-300_001, 300_001])
def test_time_beyond_five_minutes_is_refused(offset: int) -> None:
    """A request from further away in time is refused."""
    with refused(Reason.WRONG_TIME, "time"):
        check_time(NOW + offset, NOW, 0)


@pytest.mark.parametrize(("last", "good"), [(NOW - 1, True), (NOW, False), (NOW + 1, False)])
def test_time_must_grow(last: int, *, good: bool) -> None:
    """A request that is not newer than the last one is a replay."""
    if good:
        check_time(NOW, NOW, last)
    else:
        with refused(Reason.REPLAY, "time"):
            check_time(NOW, NOW, last)


def test_listed_device_is_admitted() -> None:
    """The key listed for a member id needs no token."""
    check_join(join(), "fleet", "m", now=NOW, last_time=0, identity=DEVICE_PUBLIC, token=None)


def test_device_with_token_is_admitted() -> None:
    """Where no key is listed, a token lets any key in."""
    check_join(join(TOKEN), "fleet", "m", now=NOW, last_time=0, identity=None, token=TOKEN)


def test_listed_device_is_admitted_whatever_its_token() -> None:
    """A bound identity is enough; a token that has expired since does not shut it out."""
    check_join(join(TOKEN), "fleet", "m", now=NOW, last_time=0, identity=DEVICE_PUBLIC, token=None)


def test_other_device_is_refused_even_with_a_token() -> None:
    """A member id with a bound identity is nobody else's."""
    with refused(Reason.BAD_SIGNATURE, "identity"):
        check_join(join(TOKEN), "fleet", "m", now=NOW, last_time=0, identity=bytes(32), token=TOKEN)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_unknown_token_is_refused(token: TokenKey | None) -> None:
    """Without a listed key, a Join needs a token that the server knows."""
    with refused(Reason.UNKNOWN_TOKEN, "credential"):
        check_join(join(token), "fleet", "m", now=NOW, last_time=0, identity=None, token=None)


class Papers:
    """One certificate, good or not."""

    chain = (b"leaf",)

    def __init__(self, *, good: bool = True) -> None:
        self.good = good
        self.checked: list[tuple[object, ...]] = []

    def sign(self, data: bytes) -> bytes:
        """Return a signature of sorts."""
        return data[:4]

    def check(self, *given: object) -> None:
        """Note what is checked; refuse it unless the certificate is good."""
        self.checked.append(given)
        if not self.good:
            raise RefusedError(Reason.BAD_CERTIFICATE, "credential")


def test_device_with_a_certificate_is_admitted() -> None:
    """Where no key is listed, a certificate lets any key in, if its checker says so."""
    papers = Papers()
    request = join(papers)
    check_join(request, "fleet", "m", now=NOW, last_time=0, identity=None, token=None, certificates=papers)
    assert [("m", (b"leaf",), request.possession("fleet", "m"), b"brok", NOW)] == papers.checked


def test_listed_device_is_admitted_whatever_its_certificate() -> None:
    """A bound identity is enough; a certificate that has expired since does not shut it out."""
    papers = Papers(good=False)
    check_join(
        join(papers), "fleet", "m", now=NOW, last_time=0, identity=DEVICE_PUBLIC, token=None, certificates=papers
    )
    assert [] == papers.checked


@pytest.mark.parametrize("papers", [None, Papers(good=False)])
def test_bad_certificate_is_refused(papers: Papers | None) -> None:
    """Neither a chain that its checker refuses nor any chain where there is no checker gets in."""
    with refused(Reason.BAD_CERTIFICATE, "credential"):
        check_join(join(Papers()), "fleet", "m", now=NOW, last_time=0, identity=None, token=None, certificates=papers)


def test_certificate_does_not_replace_the_identitys_signature() -> None:
    """Who has a certificate but not the key that the Join names gets no place."""
    sealed = Join.seal(DEVICE, "fleet", "m", bytes(32), credential=Papers(), asked=Asked(NONCE, NOW, 1))
    forged = Join.decode(sealed[:-1] + bytes((sealed[-1] ^ 1,)), Suite.X25519)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        check_join(forged, "fleet", "m", now=NOW, last_time=0, identity=None, token=None, certificates=Papers())


@pytest.mark.parametrize(
    ("counter", "expected"), [(6, Conduct.STEADY), (9, Conduct.STEADY), (5, Conduct.REPEATED), (4, Conduct.BEHIND)]
)
def test_counter_tells_who_goes_on_from_a_copy(counter: int, expected: Conduct) -> None:
    """A counter that was used before is no new request of the same holder."""
    assert expected is conduct(counter, 5)


def test_join_that_names_no_token_is_refused() -> None:
    """A token that the caller found proves nothing about a Join without MAC."""
    with refused(Reason.UNKNOWN_TOKEN, "credential"):
        check_join(join(), "fleet", "m", now=NOW, last_time=0, identity=None, token=TOKEN)


def test_wrong_token_secret_is_refused() -> None:
    """The MAC proves the secret."""
    with refused(Reason.BAD_MAC, "proof"):
        check_join(join(TOKEN), "fleet", "m", now=NOW, last_time=0, identity=None, token=OTHER)


@pytest.mark.parametrize(("identity", "token"), [(DEVICE_PUBLIC, None), (None, TOKEN)])
def test_join_signed_for_another_name_is_refused(identity: bytes | None, token: TokenKey | None) -> None:
    """Both ways in, group and member are what the topic says."""
    for group, member in (("fleet2", "m"), ("fleet", "m2")):
        with refused(*((Reason.BAD_SIGNATURE, "signature") if identity else (Reason.BAD_MAC, "proof"))):
            check_join(join(token), group, member, now=NOW, last_time=0, identity=identity, token=token)


def test_token_does_not_replace_the_identitys_signature() -> None:
    """Who has a token but not the key it names gets no place."""
    good = Join.seal(DEVICE, "fleet", "m", bytes(32), credential=TOKEN, asked=Asked(NONCE, NOW, 1))
    forged = Join.decode(good[:-1] + bytes((good[-1] ^ 1,)), Suite.X25519)
    with refused(Reason.BAD_SIGNATURE, "signature"):
        check_join(forged, "fleet", "m", now=NOW, last_time=0, identity=None, token=TOKEN)


@pytest.mark.parametrize(("time", "reason"), [(NOW - 300_001, Reason.WRONG_TIME), (NOW, Reason.REPLAY)])
def test_old_join_is_refused_before_its_proof(time: int, reason: Reason) -> None:
    """Time is looked at first: it is cheapest."""
    with refused(reason, "time"):
        check_join(join(TOKEN, time), "fleet", "m", now=NOW, last_time=NOW, identity=bytes(32), token=None)


def sync(time: int = NOW) -> Sync:
    """Return a Sync as the server reads it."""
    return Sync.decode(Sync.seal(LEAF, "fleet", "m", asked=Asked(NONCE, time, 1), epoch=1))


def leave(time: int = NOW) -> Leave:
    """Return a Leave as the server reads it."""
    return Leave.decode(Leave.seal(LEAF, "fleet", "m", asked=Asked(NONCE, time, 1)))


def ack(time: int = NOW) -> Ack:
    """Return an Ack as the server reads it."""
    return Ack.decode(Ack.seal(LEAF, "fleet", "m", asked=Asked(NONCE, time, 1), epoch=1))


@pytest.mark.parametrize("request_", [sync(), leave(), ack()])
def test_holder_of_the_leaf_key_may_ask(request_: Sync | Leave | Ack) -> None:
    """The leaf key proves a member's requests."""
    check_proof(request_, "fleet", "m", now=NOW, last_time=0, leaf_key=LEAF)


@pytest.mark.parametrize("request_", [sync(), leave(), ack()])
def test_request_of_a_stranger_is_refused(request_: Sync | Leave | Ack) -> None:
    """Who has no leaf has nothing to prove."""
    with refused(Reason.UNKNOWN_MEMBER, "member"):
        check_proof(request_, "fleet", "m", now=NOW, last_time=0, leaf_key=None)


@pytest.mark.parametrize("request_", [sync(), leave(), ack()])
def test_request_under_another_leaf_is_refused(request_: Sync | Leave | Ack) -> None:
    """Another's leaf key, or the one from before a refresh, proves nothing."""
    with refused(Reason.BAD_MAC, "mac"):
        check_proof(request_, "fleet", "m", now=NOW, last_time=0, leaf_key=bytes(32))


@pytest.mark.parametrize("make", [sync, leave, ack])
def test_old_request_is_refused(make: Callable[[int], Sync | Leave | Ack]) -> None:
    """Requests age as Joins do."""
    with refused(Reason.WRONG_TIME, "time"):
        check_proof(make(NOW - 300_001), "fleet", "m", now=NOW, last_time=0, leaf_key=LEAF)
    with refused(Reason.REPLAY, "time"):
        check_proof(make(NOW), "fleet", "m", now=NOW, last_time=NOW, leaf_key=LEAF)
