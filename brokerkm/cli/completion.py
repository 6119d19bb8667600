"""`brokerkm completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SHELLS: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    epilog="""\b
Examples:
  eval "$(brokerkm completion bash)"                                      (in ~/.bashrc)
  eval "$(brokerkm completion zsh)"                                       (in ~/.zshrc)
  brokerkm completion fish > ~/.config/fish/completions/brokerkm.fish
"""
)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def completion(*, shell: str) -> None:
    """Print the script that makes SHELL complete brokerkm's commands and options."""
    root = click.get_current_context().find_root().command
    click.echo(_SHELLS[shell](root, {}, "brokerkm", "_BROKERKM_COMPLETE").source())
