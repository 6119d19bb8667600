"""Merkle blocks against their recursive definition."""

from __future__ import annotations

import hashlib

import pytest

from brokerkm.core.merkle import MAX_PROOF, leaf_hash, root_and_proofs, root_from_proof

SIZES = range(1, 17)


def sha(data: bytes) -> bytes:
    """Return SHA-256 cut to 16 bytes."""
    return hashlib.sha256(data).digest()[:16]


def node(one: bytes, other: bytes) -> bytes:
    """Return the hash of two children, whichever comes first."""
    return sha(b"\x01" + min(one, other) + max(one, other))


def root(hashes: list[bytes]) -> bytes:
    """Return the root by layers: pairs are hashed, an odd one moves up."""
    while len(hashes) > 1:
        pairs = [node(*hashes[at : at + 2]) for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(hashes) & ~1 :]
    return hashes[0]


def leaves(count: int) -> list[bytes]:
    """Return the leaf hashes of `count` messages."""
    return [sha(b"\x00" + bytes((number,))) for number in range(count)]


def test_leaf_is_hashed_with_its_label() -> None:
    """A leaf's hash begins with a zero byte."""
    assert sha(b"\x00message") == leaf_hash(b"message")


@pytest.mark.parametrize("count", SIZES)
def test_root_is_that_of_the_definition(count: int) -> None:
    """Blocks of every size have the root of the specification."""
    assert root(leaves(count)) == root_and_proofs(leaves(count))[0]


@pytest.mark.parametrize("count", SIZES)
def test_each_proof_leads_to_the_root(count: int) -> None:
    """Whatever its place, a message is shown to be in its block."""
    expected, proofs = root_and_proofs(leaves(count))
    assert [expected] * count == [
        root_from_proof(leaf, proof) for leaf, proof in zip(leaves(count), proofs, strict=True)
    ]


@pytest.mark.parametrize("count", SIZES)
def test_proofs_are_short(count: int) -> None:
    """No proof has more than four hashes, and one of them has as many as the tree has layers."""
    longest = max(len(proof) for proof in root_and_proofs(leaves(count))[1])
    assert 16 * (count - 1).bit_length() == longest <= MAX_PROOF == 64


@pytest.mark.parametrize("count", range(2, 17))
def test_proof_of_another_leaf_leads_elsewhere(count: int) -> None:
    """A proof holds for its own message only."""
    expected, proofs = root_and_proofs(leaves(count))
    assert expected != root_from_proof(leaf_hash(b"forged"), proofs[0])


@pytest.mark.parametrize(("count", "sizes"), [(1, [0]), (3, [2, 2, 1]), (5, [3, 3, 3, 3, 1]), (9, [4] * 8 + [1])])
def test_odd_leaf_moves_up(count: int, sizes: list[int]) -> None:
    """The odd leaf at the end has a shorter proof."""
    assert sizes == [len(proof) // 16 for proof in root_and_proofs(leaves(count))[1]]


def test_inner_node_does_not_pass_for_a_leaf() -> None:
    """The children of an inner node, taken as a message, hash to something else (RFC 6962, section 2.1)."""
    one, other = sorted(leaves(2))
    assert root([one, other]) != leaf_hash(one + other)
