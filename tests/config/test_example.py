"""The example: complete, commented, valid as it is and with every key in force; and what a change of it needs."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from brokerkm.config import Configuration, difference, example, load
from brokerkm.config.key import keys
from brokerkm.config.sections import SECTIONS

if TYPE_CHECKING:
    from pathlib import Path

_SETTING = re.compile(r"^# (?=[a-z_0-9]+ = )", re.MULTILINE)


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    """All of it is comment, but for the names of the sections."""
    path = tmp_path / "brokerkm.toml"
    path.write_text(example())
    assert Configuration() == load(path, {})


def test_the_example_has_every_key_and_its_default() -> None:
    """What is uncommented is what the program would take by itself, where there is a default."""
    found = tomllib.loads(_SETTING.sub("", example()))
    expected = {section: {name for name, _, _ in keys(kind)} for section, kind in SECTIONS.items()}
    assert expected == {section: set(values) for section, values in found.items()}
    for section, kind in SECTIONS.items():
        for name, _, default in keys(kind):
            if default not in {None, ""}:
                assert default == found[section][name]


def test_the_example_can_be_used_with_every_key(tmp_path: Path) -> None:
    """No sample in it is refused."""
    path = tmp_path / "brokerkm.toml"
    path.write_text(_SETTING.sub("", example()))
    assert "keyserver" == load(path, {}).broker.username


def test_every_key_is_explained() -> None:
    """In a sentence; a number that is a time has its unit."""
    for kind in SECTIONS.values():
        for name, about, _ in keys(kind):
            assert about.text.endswith("."), name


def test_no_line_of_the_example_is_too_wide() -> None:
    """It is read in a terminal."""
    assert max(map(len, example().splitlines())) <= 120


@pytest.mark.parametrize(
    ("section", "name", "value", "live"),
    [
        ("telemetry", "log_level", "debug", True),
        ("limits", "member_rate", 5.0, True),
        ("broker", "url", "mqtt://other", False),
        ("store", "url", "sqlite:////other", False),
    ],
)
def test_a_change_is_live_or_needs_a_restart(section: str, name: str, value: object, live: bool) -> None:  # noqa: FBT001 - expected
    """Each changed key is named once, on its side."""
    old = Configuration()
    new = dataclasses.replace(old, **{section: dataclasses.replace(getattr(old, section), **{name: value})})
    found = difference(old, new)
    assert ((f"{section}.{name}",), ()) == (tuple(found) if live else tuple(reversed(found)))


def test_what_is_equal_is_no_change() -> None:
    """A reload of the same file does nothing."""
    assert ((), ()) == tuple(difference(Configuration(), Configuration()))
