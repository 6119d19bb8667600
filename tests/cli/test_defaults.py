"""What the configuration says of new groups holds for all of them, the first and those of `group create`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Machine

CONFIGURATION = """\
[broker]
port = 0

[defaults]
prefix = "site"
suite = "mlkem768-x25519"
degree = 8
beacon_interval = 7
grace = 77
algorithm = "chacha20-poly1305"
"""


def test_new_groups_begin_as_the_configuration_says(machine: Machine) -> None:
    """Whoever names something else has that, and the rest all the same."""
    (machine.home / "brokerkm.toml").write_text(CONFIGURATION)
    server = machine.serve("--config", "brokerkm.toml", "--json")
    server.start()
    try:
        machine.run("group", "create", "second")
        machine.run("group", "create", "third", "--degree", "2", "--grace", "5", "--max-pending", "9")
        terms = {}
        for line in machine.run("group", "list", "--json").splitlines():
            info = json.loads(line)
            named = ("prefix", "suite", "degree", "beacon_interval")
            terms[info["name"]] = [
                *(info[name] for name in named),
                info["policy"]["grace"],
                info["policy"]["algorithm"],
            ]
        expected = ["site", "mlkem768-x25519", 8, 7, 77, "chacha20-poly1305"]
        assert [expected, expected] == [terms.pop(name) for name in (*sorted(terms)[:1], "second")]
        assert {"third": ["site", "mlkem768-x25519", 2, 7, 5, "chacha20-poly1305"]} == terms
        assert machine.ask("group", "show", "third")["settings"]["max_pending"] == 9
    finally:
        server.stop()


def test_a_group_that_is_made_without_a_server_too(machine: Machine) -> None:
    """The configuration is found as the server finds it."""
    (machine.home / "brokerkm.toml").write_text(CONFIGURATION)
    machine.environment["BROKERKM_CONFIG"] = str(machine.home / "brokerkm.toml")
    info = machine.ask("group", "create", "second")
    assert ("site", 8) == (info["prefix"], info["degree"])
