"""The root of the command line: options of all commands, and where each command is."""

from __future__ import annotations

from typing import Final

import click

from brokerkm.cli.lazy import Lazy, LazyGroup
from brokerkm.cli.secrecy import forbid_core_dumps

_COMMANDS: Final = {
    "demo": Lazy("brokerkm.demo.command:demo", "Watch a fleet form, talk, evict a device and go on."),
    "serve": Lazy("brokerkm.cli.serving:serve", "Run the key server, with a broker of its own if need be."),
    "group": Lazy("brokerkm.cli.groups:group", "Create groups, look at them, renew their keys."),
    "member": Lazy("brokerkm.cli.members:member", "List members, admit devices, evict them."),
    "token": Lazy("brokerkm.cli.tokens:token", "Make enrollment tokens, list them, revoke them."),
    "admission": Lazy("brokerkm.cli.admission:admission", "Say who may join; answer those who wait."),
    "invite": Lazy("brokerkm.cli.invitation:invite", "Make an invitation for devices."),
    "join": Lazy("brokerkm.cli.joining:join", "Join a group, on the device."),
    "leave": Lazy("brokerkm.cli.joining:leave", "Leave a group for good, on the device."),
    "identity": Lazy("brokerkm.cli.joining:identity", "Print this device's public key."),
    "pub": Lazy("brokerkm.cli.publishing:pub", "Publish messages that only members can read."),
    "sub": Lazy("brokerkm.cli.subscribing:sub", "Print the messages of members."),
    "inspect": Lazy("brokerkm.cli.inspection:inspect", "Show what is in a captured message."),
    "bench": Lazy("brokerkm.bench.command:bench", "Measure the core beside its floors and rivals."),
    "status": Lazy("brokerkm.cli.status:status", "Show how the server is."),
    "events": Lazy("brokerkm.cli.events:events", "Follow what happens."),
    "audit": Lazy("brokerkm.cli.audit:audit", "Show what was done, and by whom; check the log."),
    "credential": Lazy("brokerkm.cli.credentials:credential", "Let others administer over the network."),
    "broker": Lazy("brokerkm.cli.broker:broker", "Set up the message broker to guard topics."),
    "guard": Lazy("brokerkm.cli.guard:guard", "Keep the broker in step: who may do what there."),
    "server": Lazy("brokerkm.cli.servers:server", "Show the servers that share a database."),
    "store": Lazy("brokerkm.cli.store:store", "Copy, check, restore the store; change its key."),
    "rule": Lazy("brokerkm.cli.rules:rule", "What the server does by itself: rotate, evict, notify."),
    "config": Lazy("brokerkm.cli.configuration:config", "Print an example of the configuration, check a file."),
    "doctor": Lazy("brokerkm.cli.diagnosis:doctor", "Look for what is wrong, and say what to do."),
    "completion": Lazy("brokerkm.cli.completion:completion", "Print a shell's completion script."),
}

_EXAMPLES: Final = """\b
Examples:
  brokerkm demo                             see it all at work
  brokerkm serve                            begin; it says what to do next
  brokerkm COMMAND --help                   options and examples of a command
\b
Exit status: 0 done, 1 failed, 2 wrong usage.
"""


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    plugins=True,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="brokerkm", message="%(prog)s %(version)s")
def program() -> None:
    """Group key management for message brokers: only a group's current members can read what they send each other."""
    forbid_core_dumps()
