"""The plugin's table under control messages that are damaged: no wrong step in memory, no leak, and it goes on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from brokers.mosquitto import SOURCE
from brokers.process import require

HARNESS = Path(__file__).with_name("fuzz_control.c")
PARTS = ("siphash", "names", "group", "topics", "newcomers", "login", "guard", "wire", "control")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(directory: Path, *flags: str) -> Path:
    """Build the harness with all of the plugin but Mosquitto's side."""
    program = directory / "fuzz_control"
    files = [str(HARNESS), *(str(SOURCE / f"{part}.c") for part in PARTS)]
    command = [require("gcc", "gcc libc6-dev libssl-dev"), "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", *flags]
    subprocess.run([*command, f"-I{SOURCE}", "-o", str(program), *files, "-lcrypto"], check=True)
    return program


def done(output: str) -> tuple[int, int]:
    """Return how many messages were done, and how many there were."""
    found = re.fullmatch(r"(\d+) of (\d+) done\n", output)
    assert found is not None, output
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_damaged_messages_do_no_harm(tmp_path: Path, seed: int) -> None:
    """Built with what notices a wrong step in memory and undefined behaviour; a good part of the messages is done."""
    program = build(tmp_path, *SANITIZERS)
    ran = subprocess.run([program, str(seed), "40000"], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    accepted, sent = done(ran.stdout)
    assert 40_000 == sent
    assert sent // 10 < accepted < sent


def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """No byte is used before it was written, and all memory is given back."""
    valgrind = [require("valgrind", "valgrind"), "--quiet", "--error-exitcode=9", "--leak-check=full"]
    program = build(tmp_path)
    ran = subprocess.run([*valgrind, program, "4", "3000"], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert 300 < done(ran.stdout)[0]
