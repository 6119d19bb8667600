"""The command `brokerkm`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; exits 0 if done, 1 if it failed, 2 for wrong usage."""
    from brokerkm.cli.program import program  # noqa: PLC0415 - whoever imports this package pays for no click

    program(prog_name="brokerkm")
