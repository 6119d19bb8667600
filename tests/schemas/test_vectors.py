"""The vectors in `schemas/vectors`: the real code gives what each file expects."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from schemas.replay import run

FILES = sorted((pathlib.Path(__file__).parents[2] / "schemas" / "vectors").glob("*.json"))
VECTORS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    """What the code makes of the input is what the file expects."""
    vector = VECTORS[name]
    assert run(vector["kind"], vector["input"]) == vector["expect"]
