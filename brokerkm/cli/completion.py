"""`brokerkm completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

_SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
Examples:
  eval "$(brokerkm completion bash)"                                      (in ~/.bashrc)
  eval "$(brokerkm completion zsh)"                                       (in ~/.zshrc)
  brokerkm completion fish > ~/.config/fish/completions/brokerkm.fish
"""
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(*, shell: str) -> None:
    """Print the script that makes SHELL complete brokerkm's commands and options."""
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    if kind is not None:
        click.echo(kind(root, {}, "brokerkm", "_BROKERKM_COMPLETE").source())
