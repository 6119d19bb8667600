"""The key server's configuration: one TOML file, the environment over it, secrets by reference only.

`Configuration` is a frozen value. What may change while the server runs is marked where a key is declared
(`brokerkm.config.sections`); a file that cannot be used never replaces one that can.
"""

from brokerkm.config.difference import Difference, difference
from brokerkm.config.example import example
from brokerkm.config.reading import ConfigurationError, Problem, load
from brokerkm.config.references import elsewhere, in_unit, missing
from brokerkm.config.secret import Secret
from brokerkm.config.sections import Configuration

__all__ = [
    "Configuration",
    "ConfigurationError",
    "Difference",
    "Problem",
    "Secret",
    "difference",
    "elsewhere",
    "example",
    "in_unit",
    "load",
    "missing",
]
