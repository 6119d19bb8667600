"""Commits: which keys are new, and what is published of them. RFC 2627's example and table among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brokerkm.core.commit import Enrollment
from brokerkm.core.group import Group
from brokerkm.core.messages import MAX_STEP
from brokerkm.core.renewal import Rotation, renew
from schemas.material import GROUP, SERVER_SEED, Fields, Json, Stream, Vector, draw
from schemas.replay import run
from schemas.replay_group import dump_tree, load_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

RFC_2627_TABLE_1 = ((8, 2, 3), (9, 3, 4), (16, 2, 4), (2048, 2, 11), (2187, 3, 14), (131_072, 2, 17), (177_147, 3, 22))


def vectors() -> Iterator[Vector]:
    """Yield commits of small groups whole, and of large ones the number of messages."""
    rfc = commit(_group(16, 2), emptied=[10])
    assert len(rfc.expect["messages"]) <= 4  # type: ignore[arg-type]
    description = "RFC 2627, section 5.4: 16 users, k = 2, User 11 (slot 10) is excluded. At most 4 messages."
    yield Vector("commit-rfc2627", description, "commit", rfc.input, rfc.expect)
    yield from _small()
    for users, degree, bound in RFC_2627_TABLE_1:
        given: Fields = {"users": users, "degree": degree, "evicted": users * 2 // 3}
        counted = run("evict", given)
        assert isinstance(counted["messages"], int)
        assert counted["messages"] <= bound
        description = f"RFC 2627, table 1: {users} users, degree {degree}. at most {bound} messages."
        yield Vector(f"evict-{users}-{degree}", description, "evict", {**given, "bound": bound}, counted)


def _small() -> Iterator[Vector]:
    cases: dict[str, tuple[str, Group, dict[str, Any]]] = {
        "first": ("The first three members of a group: nobody to tell.", _group(0, 4), {"seated": [0, 1, 2]}),
        "join": ("A join into a free slot: its path is ratcheted, nobody is told.", _group(7, 2), {"seated": [7]}),
        "growth": (
            "A fifth member of a full tree: the old root is a cover node.",
            _group(4, 2),
            {"seated": [4]},
        ),
        "growth-twice": (
            "Three members become ten: two new roots.",
            _group(3, 3),
            {"seated": list(range(3, 10))},
        ),
        "evict": ("One of twenty, degree 4.", _group(20, 4), {"emptied": [6]}),
        "evict-two": ("Two of twenty with a common parent.", _group(20, 4), {"emptied": [5, 6]}),
        "batch": (
            "Slots 3 and 17 evicted, slot 3 given away again, slot 20 new.",
            _group(20, 4),
            {"emptied": [3, 17], "seated": [3, 20]},
        ),
        "refresh": ("A new leaf key for slot 2.", _group(8, 2), {"emptied": [2], "seated": [2]}),
        "last-of-bucket": ("A bucket becomes empty.", _group(5, 4), {"emptied": [4]}),
        "rotate-root": ("The root alone.", _group(8, 2), {"rotations": [[3, 0, False]]}),
        "rotate-subtree": ("Node (2, 1), all below it and the root.", _group(8, 2), {"rotations": [[2, 1, True]]}),
        "rotate-all": ("Every inner node.", _group(5, 2), {"rotations": [[3, 0, True]]}),
    }
    cases |= _spares()
    for name, (description, group, changes) in cases.items():
        vector = commit(group, **changes)
        yield Vector(f"commit-{name}", description, "commit", vector.input, vector.expect)
    group = _group(7, 2)
    group.tree.set(1, {3: group.tree.get(1, 3)._replace(step=MAX_STEP)})
    vector = commit(group, seated=[7])
    description = "A node that was ratcheted 65,535 times is drawn anew, with all above it, at the next join."
    yield Vector("commit-step-bound", description, "commit", vector.input, vector.expect)


def _spares() -> dict[str, tuple[str, Group, dict[str, Any]]]:
    two = [draw(f"spare {number}", 32).hex() for number in range(2)]
    root: dict[str, Any] = {"rotations": [[3, 0, False]]}
    return {
        "spare": (
            "The root alone: the older of two spares is its key.",
            _group(8, 2),
            {**root, "spares": (two, 0)},
        ),
        "spare-growth": (
            "The tree grows: its new root takes one.",
            _group(4, 2),
            {"seated": [4], "spares": (two, 0)},
        ),
        "spare-join": ("A join takes none; the joiner wants three.", _group(7, 2), {"seated": [7], "spares": (two, 3)}),
        "spare-evict": (
            "An eviction, beside a rotation: no spare is used, all are dropped.",
            _group(8, 2),
            {**root, "emptied": [6], "spares": (two, 0)},
        ),
        "spare-evict-wanted": (
            "An eviction, and a newcomer that wants two spares: both are new.",
            _group(8, 2),
            {"emptied": [6], "seated": [6], "spares": (two, 2)},
        ),
        "spare-rotate-all": (
            "Every inner node: keys may have leaked, so the spares are dropped.",
            _group(8, 2),
            {"rotations": [[3, 0, True]], "spares": (two, 0)},
        ),
        "spare-rotate-subtree": (
            "A rotation of more than the root drops the spares as well.",
            _group(8, 2),
            {"rotations": [[2, 1, False]], "spares": (two, 0)},
        ),
    }


def _group(members: int, degree: int) -> Group:
    """Return a group of members m0, m1, … whose keys are of epochs 1 and 2."""
    group = Group(GROUP, SERVER_SEED, degree=degree)
    random = Stream(f"{members} of {degree}")
    for start, stop in ((0, members - members // 3), (members - members // 3, members)):
        for slot in range(start, stop):
            group.enroll(Enrollment(f"m{slot}"))
        group.commit(0, random)
    return group


def commit(
    group: Group,
    emptied: list[int] | None = None,
    seated: list[int] | None = None,
    rotations: list[list[int]] | None = None,
    spares: tuple[list[str], int] | None = None,
) -> Vector:
    """Return the vector of the next commit; `spares` are those that there are, in hex, and how many are wanted."""
    tree: list[Json] = dump_tree(group.tree)
    given: dict[str, Any] = {
        "group": GROUP,
        "server_seed": SERVER_SEED.hex(),
        "epoch": group.epoch + 1,
        "degree": group.tree.degree,
        "height": group.tree.height,
        "tree": tree,
        "emptied": emptied or [],
        "seated": seated or [],
        "rotations": rotations or [],
    }
    if spares is not None:
        given["spares"], given["spares_wanted"] = spares
    given["random"] = _randomness(given).hex()
    return Vector("", "", "commit", given, run("commit", given))


def _randomness(given: dict[str, Any]) -> bytes:
    """Return as many random bytes as the commit takes."""
    drawn: list[bytes] = []
    source = Stream(f"commit {len(given['tree'])}")

    def drawing(size: int) -> bytes:
        drawn.append(source(size))
        return drawn[-1]

    loaded, height = load_tree(given), given["height"]
    while max(given["seated"], default=0) >= given["degree"] ** height:
        height += 1
    loaded.extend(height, max([loaded.used, *(slot + 1 for slot in given["seated"])]))
    rotations = [Rotation(*rotation) for rotation in given["rotations"]]
    changed = {"emptied": given["emptied"], "seated": given["seated"], "rotations": rotations}
    renew(loaded, given["epoch"], height, **changed, random=drawing)
    if given.get("spares_wanted"):
        drawing(32 * (given["spares_wanted"] - (0 if given["emptied"] else len(given["spares"]))))
    return b"".join(drawn)
