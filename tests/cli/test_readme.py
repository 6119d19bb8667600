"""What README.md says can be typed, and what it links to is there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click

from brokerkm.cli.program import program

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text()


def test_commands_can_be_typed() -> None:
    """Each command of the tour is known, with its options."""
    commands = [shlex.split(line, comments=True)[2:] for line in TEXT.splitlines() if line.startswith("$ brokerkm ")]
    commands += [shlex.split(words)[1:] for words in re.findall(r"`(brokerkm [a-z][^`]*)`", TEXT)]
    assert {"serve", "invite", "join", "sub", "pub", "member", "inspect"} <= {words[0] for words in commands}
    parse(commands)


def test_what_operators_are_told_can_be_typed() -> None:
    """Each command line of deploy/README.md is known, with its options, by itself or as the unit would run it."""
    text = (README.parent / "deploy/README.md").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith(("    brokerkm ", "    unit "))]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert {"config", "status", "doctor", "store", "group"} <= {words[0] for words in commands}
    parse(commands)


def parse(commands: list[list[str]]) -> None:
    """Have each command take its arguments."""
    for words in commands:
        command: click.Command | None = program
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None
        command.make_context(command.name, words)  # raises `click.UsageError`


def test_python_is_python() -> None:
    """The example of the member SDK is valid inside a coroutine."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    ast.parse("async def main():\n" + "".join(f"    {line}\n" for line in example.splitlines()))


def test_links_lead_somewhere() -> None:
    """Every relative link names a file or directory of this tree."""
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert links
    assert [] == [link for link in links if not (README.parent / link).exists()]
