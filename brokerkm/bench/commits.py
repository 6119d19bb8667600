"""What one commit costs the server and the fleet, beside its floor and its rivals."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Final

from brokerkm.bench.anatomy import Anatomy
from brokerkm.bench.row import Row, best_of
from brokerkm.core.commit import Enrollment
from brokerkm.core.crypto import KEY_SIZE, load_signing_key, wrap_key
from brokerkm.core.group import Group
from brokerkm.core.merkle import BLOCK_SIZE, leaf_hash, node_hash
from brokerkm.core.signing import MAX_SINGLY_SIGNED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from brokerkm.core.commit import Commit

GROUP: Final = "fleet-01"  # 8 characters, as the limits assume
_ENROLL_AT_ONCE: Final = 10_000
_PAIRWISE_SAMPLE: Final = 2_000
_AGED: Final = 1_000  # commits: the epoch of a group in use takes 3 bytes, not 1


def build_group(members: int, degree: int, progress: Callable[[int], None] = lambda _: None) -> Group:
    """Return a group of `members` without KEM keys, so that no time goes into Welcomes.

    Args:
        progress: called with how many more are enrolled.
    """
    group = Group(GROUP, os.urandom(KEY_SIZE), degree=degree, epoch=_AGED)
    for start in range(0, members, _ENROLL_AT_ONCE):
        end = min(start + _ENROLL_AT_ONCE, members)
        for number in range(start, end):
            group.enroll(Enrollment(f"device-{number:07d}"))
        group.commit(time.time(), os.urandom)
        progress(end - start)
    return group


def measure_eviction(group: Group, case: str, evicted: int, repetitions: int, seed: int = 1) -> Row:
    """Return the figures of the commit that evicts `evicted` random members; others come in their place then.

    Raises:
        AssertionError: a remaining member would not get exactly one Rekey.
    """
    members = len(group.directory)
    everyone = [member for _, member in group.directory]
    for member in random.Random(seed).sample(everyone, evicted):  # noqa: S311 - which one is no secret
        group.evict(member)
    commit = group.prepare(time.time(), os.urandom)
    anatomy = Anatomy(commit, group.tree)
    bare = _Bare(commit, len(anatomy.wraps))
    cpu, floor = best_of(repetitions, lambda: group.prepare(time.time(), os.urandom), bare.run)
    group.apply(commit)
    for member, _ in commit.change.removed:
        group.enroll(Enrollment(member))
    group.commit(time.time(), os.urandom)
    remaining = members - evicted
    total = sum(len(rekey.payload) * count for rekey, count in zip(commit.rekeys, anatomy.reached, strict=True))
    flat = remaining * anatomy.flat_size
    return Row(
        case=case,
        members=members,
        degree=group.tree.degree,
        evicted=evicted,
        messages=len(commit.rekeys),
        mean_bytes=round(total / remaining, 1),
        max_bytes=max(len(rekey.payload) for rekey in commit.rekeys),
        messages_per_member=sum(anatomy.reached) / remaining,
        cpu_s=cpu,
        floor_s=floor,
        ratio=round(cpu / floor, 2),
        bytes_total=total,
        flat_bytes_total=flat,
        flat_times=round(flat / total, 1),
        pairwise_messages=remaining,
        pairwise_times=round(remaining / len(commit.rekeys), 1),
        pairwise_cpu_s=_pairwise_cpu(remaining),
    )


class _Bare:
    """The cryptography of a commit, called bare: its key wraps, its signatures or signature blocks and their hashes."""

    def __init__(self, commit: Commit, wraps: int) -> None:
        self._wraps: Final = wraps
        self._key: Final = load_signing_key(bytes(KEY_SIZE))
        goodbyes = [goodbye for _, goodbye in commit.goodbyes]
        self._batches: Final = ([rekey.payload for rekey in commit.rekeys], goodbyes, [commit.beacon])

    def run(self) -> None:
        """Do it once, on keys and messages of the same sizes."""
        key = bytes(KEY_SIZE)
        for _ in range(self._wraps):
            wrap_key(key, key)
        for batch in self._batches:
            self._sign(batch)

    def _sign(self, batch: Sequence[bytes]) -> None:
        key = self._key
        if len(batch) <= MAX_SINGLY_SIGNED:
            for message in batch:
                key.sign(message)
            return
        for start in range(0, len(batch), BLOCK_SIZE):
            leaves = [leaf_hash(message) for message in batch[start : start + BLOCK_SIZE]]
            for leaf in leaves[1:]:
                node_hash(leaf, leaf)
            key.sign(leaves[0])


def _pairwise_cpu(members: int) -> float:
    """Return the CPU time of one wrap and one signature for each of `members`, scaled up from a sample."""
    key, signing = bytes(KEY_SIZE), load_signing_key(bytes(KEY_SIZE))
    sample = min(members, _PAIRWISE_SAMPLE)

    def work() -> None:
        for _ in range(sample):
            signing.sign(wrap_key(key, key))

    return best_of(3, work)[0] * members / sample
