"""The commands of the page about admission, as it has them: they make an authority, and let a device in and out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import PATIENCE, Machine

PAGE = Path(__file__).parents[2] / "deploy/ADMISSION.md"
CURVE = "-newkey ec -pkeyopt ec_paramgen_curve:P-256"


def blocks(section: str) -> list[str]:
    """Return the commands in a section of the page."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return ["".join(line[4:] or "\n" for line in block.splitlines(keepends=True)) for block in found]


def run(machine: Machine, commands: str) -> None:
    """Run commands in the machine's directory, as somebody would who pastes them."""
    program = machine.home / "bin/brokerkm"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m brokerkm "$@"\n')
        program.chmod(0o700)
    environment = {**machine.environment, "PATH": f"{program.parent}:{machine.environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", commands],  # noqa: S607 - whichever comes first
        cwd=machine.home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert 0 == done.returncode, f"{commands}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("algorithm", [CURVE, "-newkey rsa:3072", "-newkey ed25519"])
def test_the_commands_of_the_page(tmp_path: Path, algorithm: str) -> None:
    """From nothing to a device in the group, and out of it again; its certificate is worth nothing then."""
    machine = Machine(tmp_path)
    server = machine.serve("--port", "0", "--interval", "0.05")
    server.start()
    try:
        authority, device, lists, policy, joins, out = blocks("Certificates, from nothing")
        for commands in (authority, device.replace(CURVE, algorithm), lists, policy):
            run(machine, commands)
        machine.run("invite")
        machine.run("join", "fleet.join", "-i", "valve", status=1)  # a token is worth nothing by these rules
        (machine.home / "pump-7.key").chmod(0o600)
        run(machine, joins)
        assert "seated" == machine.ask("member", "show", "pump-7")["status"]
        run(machine, out)
        assert "evicted" == machine.ask("member", "show", "pump-7")["status"]
        machine.run("admission", "release", "pump-7")  # so that the id is free, and only the list keeps it out
        (tmp_path / "other").mkdir()
        other = Machine(tmp_path / "other")
        for name in ("fleet.join", "pump-7.pem", "pump-7.key"):
            (other.home / name).write_bytes((machine.home / name).read_bytes())
        (other.home / "pump-7.key").chmod(0o600)
        shown = ("--certificate", "pump-7.pem", "--key", "pump-7.key")
        assert "does not admit pump-7" in other.run("join", "fleet.join", "-i", "pump-7", *shown, status=1)
    finally:
        server.stop()


def test_the_rules_of_the_page_are_taken(tmp_path: Path) -> None:
    """They are what the server prints again."""
    (block,) = blocks("Rules")
    machine = Machine(tmp_path)
    machine.run("group", "create", "fleet")
    machine.run("admission", "set", "-", text=block)
    assert json.loads(block)["rules"][0]["action"] == json.loads(machine.run("admission", "show"))["rules"][0]["action"]
