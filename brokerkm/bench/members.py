"""What a member pays: for one Rekey, and for one application message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from brokerkm.bench.commits import GROUP
from brokerkm.bench.row import Row, best_of
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import KEY_SIZE, WRAPPED_KEY_SIZE, load_signing_key, wrap_key
from brokerkm.core.group import Group
from brokerkm.core.member import Member
from brokerkm.core.memory import Profile
from brokerkm.core.names import Topics
from brokerkm.core.rekey import Rekey
from brokerkm.core.request import Join

if TYPE_CHECKING:
    from collections.abc import Callable

_TOPICS: Final = Topics(GROUP)
_PAYLOAD: Final = 256  # bytes of one application message
_MESSAGES: Final = 10_000
_REKEYS: Final = 200
_NOW: Final = 1_000.0


def _join(group: Group, *names: str) -> list[Member]:
    """Return new members of `group` that have their Welcomes."""
    members: dict[str, Member] = {}
    for name in names:
        member = members[name] = Member.create(Profile(GROUP, name, group.server_key), os.urandom)
        join = Join.decode(member.join(_NOW), group.suite)
        group.enroll(Enrollment(name, join.identity, join.kem_public, join.nonce))
    for name, welcome in group.commit(_NOW, os.urandom).welcomes:
        members[name].receive(_TOPICS.member(name), welcome, _NOW)
    return list(members.values())


def _rekeys_for(member: Member, group: Group, others: list[str]) -> list[tuple[str, bytes]]:
    """Return the (topic, payload) of the Rekeys that `member` gets while `others` are evicted one by one."""
    filters = set(member.filters)
    inbox: list[tuple[str, bytes]] = []
    for other in others:
        group.evict(other)
        commit = group.commit(_NOW, os.urandom)
        addressed = [(_TOPICS.node(rekey.level, rekey.index), rekey.payload) for rekey in commit.rekeys]
        inbox += [item for item in addressed if item[0] in filters]
    return inbox


def measure_rekey(members: int, degree: int, repetitions: int) -> Row:
    """Return what a member pays for a Rekey: the mean over the evictions of other members of a group of `members`."""
    group = Group(GROUP, os.urandom(KEY_SIZE), degree=degree)
    others = [f"device-{number:07d}" for number in range(members - 1)]
    for other in others:
        group.enroll(Enrollment(other))
    group.commit(_NOW, os.urandom)
    (member,) = _join(group, "observed")
    saved = member.dump()
    inbox = _rekeys_for(member, group, others[:: max(1, len(others) // _REKEYS)])
    signing = load_signing_key(bytes(KEY_SIZE))
    key, wrapped = bytes(KEY_SIZE), wrap_key(bytes(KEY_SIZE), bytes(KEY_SIZE))
    parts = [(payload, signing.sign(payload), _unwraps(topic, payload)) for topic, payload in inbox]

    def ours(fresh: Member) -> None:
        for topic, payload in inbox:
            fresh.receive(topic, payload, _NOW)

    def floor(verify: Callable[[bytes, bytes], None]) -> None:
        for payload, signature, unwraps in parts:
            verify(signature, payload)
            for _ in range(unwraps):
                aes_key_unwrap(key, wrapped)

    again = iter([Member.load(saved, os.urandom, _NOW) for _ in range(repetitions)])
    cpu, least = best_of(repetitions, lambda: ours(next(again)), lambda: floor(signing.public_key().verify))
    sizes = [len(payload) for _, payload in inbox]
    return Row(
        case="member",
        members=members,
        degree=degree,
        messages=len(inbox),
        mean_bytes=round(sum(sizes) / len(sizes), 1),
        max_bytes=max(sizes),
        cpu_s=cpu / len(inbox),
        floor_s=least / len(inbox),
        ratio=round(cpu / least, 2),
    )


def _unwraps(topic: str, payload: bytes) -> int:
    """Return how many keys the member unwraps from a Rekey."""
    rekey = Rekey.decode(payload, int(topic.split("/")[-2]))
    return 1 + len(rekey.chain) // WRAPPED_KEY_SIZE


def measure_data(repetitions: int) -> Row:
    """Return what sealing and opening one message of 256 bytes costs two members."""
    sender, receiver = _join(Group(GROUP, os.urandom(KEY_SIZE)), "device-0000001", "device-0000002")
    plaintext = os.urandom(_PAYLOAD)
    topic, now = "plant/temperature", _NOW + 1

    def ours() -> None:
        for message in [sender.seal(topic, plaintext, now) for _ in range(_MESSAGES)]:
            receiver.receive(topic, message, now)

    cipher, nonce, header = AESGCM(os.urandom(KEY_SIZE)), bytes(12), bytes(64)

    def floor() -> None:
        for ciphertext in [cipher.encrypt(nonce, plaintext, header) for _ in range(_MESSAGES)]:
            cipher.decrypt(nonce, ciphertext, header)

    cpu, least = best_of(repetitions, ours, floor)
    sealed = sender.seal(topic, plaintext, now)
    return Row(
        case="data",
        members=2,
        mean_bytes=len(sealed),
        max_bytes=len(sealed),
        cpu_s=cpu / _MESSAGES,
        floor_s=least / _MESSAGES,
        ratio=round(cpu / least, 2),
    )
