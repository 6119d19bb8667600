"""A small group for the vectors: eight members in a tree of degree 2, the one that is looked at in slot 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import Algorithm, ratchet
from brokerkm.core.data import Sealer, traffic_key
from brokerkm.core.group import Group
from brokerkm.core.names import Topics
from brokerkm.core.policy import Policy
from brokerkm.core.welcome import NodeKey
from schemas.material import (
    GROUP,
    IDENTITY_SEED,
    MEMBER,
    NOW,
    SERVER_PUBLIC,
    SERVER_SEED,
    Fields,
    Json,
    Stream,
    Vector,
    draw,
    hexed,
)
from schemas.replay import run

if TYPE_CHECKING:
    from brokerkm.core.commit import Commit

SLOT = 5
TOPICS = Topics(GROUP)
KEM_SEED = draw("kem", 32)
JOIN_NONCE, SYNC_NONCE = draw("nonce", 16), draw("sync nonce", 16)


class World:
    """A group whose commits are carried to one member step by step."""

    def __init__(self, members: int = 8) -> None:
        self.group = Group(GROUP, SERVER_SEED, degree=2, policy=Policy())
        self._random = Stream("world")
        self.now = NOW
        for slot in range(members):
            self.enroll(MEMBER if slot == SLOT else f"m{slot}")
        self.commit()
        self.steps: list[Json] = []
        self.member = self.state()

    def enroll(self, member: str) -> None:
        """Queue a member that asks for no Welcome."""
        self.group.enroll(Enrollment(member))

    def commit(self) -> Commit:
        """Make the next epoch, a second later."""
        self.now += 1
        return self.group.commit(self.now, self._random)

    def rekeys(self, commit: Commit) -> dict[str, bytes]:
        """Return the Rekeys of a commit by topic."""
        return {TOPICS.node(rekey.level, rekey.index): rekey.payload for rekey in commit.rekeys}

    def mine(self, commit: Commit) -> tuple[str, bytes]:
        """Return the one Rekey of a commit that is for the member, with its topic."""
        span = [0, *range(1, self.group.tree.height)]
        topics = [TOPICS.node(level, SLOT // 2 ** (level or 1)) for level in span]
        (found,) = [(topic, payload) for topic, payload in self.rekeys(commit).items() if topic in topics]
        return found

    def state(self, state: str = "active") -> Fields:
        """Return the member as it stands in the group now, or before it has joined."""
        tree, active = self.group.tree, state == "active"
        leaf = tree.get(0, SLOT)
        return {
            "group": GROUP,
            "member": MEMBER,
            "server_key": SERVER_PUBLIC.hex(),
            "suite": 1,
            "identity_seed": IDENTITY_SEED.hex(),
            "kem_seed": KEM_SEED.hex(),
            "join_nonces": [JOIN_NONCE.hex()],
            "sync_nonces": [SYNC_NONCE.hex()],
            "state": state,
            "epoch": self.group.epoch if active else 0,
            "slot": SLOT,
            "degree": 2,
            "leaf": [leaf.birth, leaf.key.hex()],
            "path": [[node.birth, node.step, node.key.hex()] for node in tree.path(SLOT)] if active else [],
            "policy": hexed(self.group.policy.fields),
            "now": self.now,
        }

    def take(self, topic: str, payload: bytes, now: float | None = None) -> None:
        """Let the member receive a message."""
        self.steps.append({"now": self.now if now is None else now, "topic": topic, "payload": payload.hex()})  # type: ignore[dict-item]

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.steps.append({"now": now, "tick": True})  # type: ignore[dict-item]

    def data(
        self, counter: int, ahead: int = 0, *, forged: bool = False, algorithm: Algorithm = Algorithm.AES_256_GCM
    ) -> bytes:
        """Return a Data message of m0 under the current root, or so many steps ahead of it."""
        sealer = Sealer(GROUP, "m0", draw("salt", 8), "bkm/1/")
        key, birth, step = self.group.tree.get(self.group.tree.height, 0)
        later = NodeKey(ratchet(key, 0 if forged else ahead), birth, step + ahead)
        sealer.use(traffic_key(GROUP, later), later.birth, later.step, algorithm)
        sealer._counter = counter
        return sealer.seal("plant/temperature", b"21.4")

    def vector(self, name: str, description: str, *expected: str) -> Vector:
        """Return the vector of all steps.

        Args:
            name: of the file.
            description: what happens.
            expected: for each step its events, or reason and field of a refusal, with spaces between.
        """
        given: Fields = {"member": self.member, "steps": self.steps}
        outcome = run("member", given)
        steps = outcome["steps"]
        assert isinstance(steps, list)
        brought = [_words(step) for step in steps if isinstance(step, dict)]
        assert brought == list(expected), (name, brought)
        return Vector(name, description, "member", given, outcome)


def _words(step: Fields) -> str:
    match step:
        case {"error": {"reason": reason, "field": field}}:
            return f"{reason} {field}"
        case {"events": list(events)}:
            return " ".join(str(event["event"]) for event in events if isinstance(event, dict))
        case _:
            return ""
