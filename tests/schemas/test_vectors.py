"""The vectors in `schemas/vectors`: the real code gives what each file expects."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from brokerkm.errors import Reason
from schemas.generate_vectors import FOLDER, make
from schemas.replay import run

FILES = sorted(FOLDER.glob("*.json"))
VECTORS: Final[dict[str, dict[str, Any]]] = {path.stem: json.loads(path.read_text()) for path in FILES}


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    """What the code makes of the input is what the file expects."""
    vector = VECTORS[name]
    assert run(vector["kind"], vector["input"]) == vector["expect"]


def refusals(vector: dict[str, Any]) -> set[str]:
    """Return the reasons for which a vector expects something to be refused."""
    expect = vector["expect"]
    return {outcome["error"]["reason"] for outcome in (expect, *expect.get("steps", ())) if "error" in outcome}


def test_most_vectors_are_refusals() -> None:
    """There are many, and what must be refused is most of them."""
    negative = [name for name, vector in VECTORS.items() if refusals(vector)]
    assert len(VECTORS) >= 200
    assert 2 * len(negative) >= len(VECTORS)


def test_each_reason_is_shown() -> None:
    """Every reason of the closed list is expected somewhere, but for the two that stay inside a member."""
    shown = set().union(*map(refusals, VECTORS.values()))
    assert shown == set(Reason) - {Reason.NO_ENTRY, Reason.WRONG_STATE}


def test_files_are_what_the_generator_makes() -> None:
    """No file was changed by hand, is missing or left over."""
    assert make() == {path.stem: path.read_text() for path in FILES}


@pytest.mark.parametrize("name", [name for name, vector in VECTORS.items() if vector["kind"] == "evict"])
def test_messages_of_one_eviction_are_within_the_bound(name: str) -> None:
    """RFC 2627's table 1, multi-key column: ours is equal or lower."""
    vector = VECTORS[name]
    degree, height = vector["input"]["degree"], 1
    while degree**height < vector["input"]["users"]:
        height += 1
    assert vector["expect"]["messages"] <= vector["input"]["bound"]
    assert vector["expect"]["messages"] == (degree - 1) * (height - 1) + 1


def test_rfc_2627_example_takes_four_messages() -> None:
    """16 users, k = 2, User 11 is excluded."""
    assert len(VECTORS["commit-rfc2627"]["expect"]["messages"]) == 4


def test_vector_has_what_the_readme_says() -> None:
    """Five fields, the name of its file, a description."""
    for name, vector in VECTORS.items():
        assert list(vector) == ["name", "description", "kind", "input", "expect"]
        assert vector["name"] == name
        assert vector["description"]


def test_readme_names_every_reason_and_kind() -> None:
    """The specification's closed lists are those of the code and of the vectors."""
    text = (FOLDER.parent / "README.md").read_text()
    kinds = {vector["kind"] for vector in VECTORS.values()}
    assert [word for word in sorted({*Reason, *kinds}) if f"`{word}`" not in text] == []
