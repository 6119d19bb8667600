"""What is refused before anything is done, what fails as expected, and how little is loaded for that."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from brokers.process import free_port
from click.testing import CliRunner

from brokerkm.cli.lazy import Lazy, LazyGroup
from brokerkm.descriptor import Descriptor
from brokerkm.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Call = Callable[..., Result]

DESCRIPTOR = {
    "brokerkm": 1,
    "broker": "mqtt://127.0.0.1:1",
    "group": "plant",
    "prefix": "bkm/1",
    "suite": "x25519",
    "server_key": "00" * 32,
}


def joined(state: Path, *members: tuple[str, str]) -> None:
    """Make it look as if members (group, member) had joined here."""
    for group, member in members:
        home = state / "brokerkm" / group / member
        home.mkdir(parents=True)
        Descriptor.from_json(json.dumps({**DESCRIPTOR, "group": group})).write(home / "fleet.join")


def begin() -> None:
    """Make a store without a group."""
    SqliteStore(Path("s/brokerkm-server/brokerkm.sqlite")).close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["unknown"], "No such command 'unknown'"),
        (["serve", "--broker", "mqtt://user:secret@broker"], "a password on the command line is seen by others"),
        (["serve", "--port", "70000"], "70000"),
        (["invite", "--expires", "soon"], "'soon' is not a number with s, m, h or d"),
        (["member", "add", "pump", "xyz"], "IDENTITY is 64 hex digits"),
        (["member", "evict"], "name the members"),
        (["pub", "-t", "a/b"], "give one of -m, -l, -s, -f and -n"),
        (["pub", "-t", "a/b", "-m", "x", "-n"], "give one of -m, -l, -s, -f and -n"),
        (["pub", "-m", "x"], "Missing option '-t'"),
        (["sub"], "Missing option '-t'"),
        (["join", "fleet.join"], "Missing option '-i'"),
        (["join", "absent.join", "-i", "pump"], "absent.join: No such file or directory"),
        (["inspect", "--hex", "98", "--base64", "mA=="], "give one of --hex, --base64 and --lines"),
        (["inspect", "--hex", "98", "--server-key", "00" * 32], "--server-key needs --topic"),
        (["serve", "--interval", "-1"], "-1.0 is not in the range"),
        (["join", "plant.join", "-i", "../escape"], "is not 1 to 64 characters"),
        (["inspect", "--hex", "xyz"], "--hex is not hexadecimal"),
        (["inspect", "--base64", "!"], "--base64 is not base64"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
        (["demo", "--members", "2"], "2 is not in the range"),
        (["demo", "--transport", "zmq", "--broker", "mqtt://b"], "--broker is for MQTT"),
        (["group", "create", "no/slash"], "is not 1 to 64 characters"),
        (["pub", "-t", "a", "-m", "x", "--password-file", "absent"], "password file absent: No such file"),
        (["pub", "-t", "a", "-m", "x", "--password-file", "latin"], "password file latin: it is not UTF-8"),
        (["group", "show", "absent"], "there is no group 'absent'"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(call: Call, arguments: list[str], text: str) -> None:
    """Nothing is done, and the reason is on standard error."""
    begin()
    Path("latin").write_bytes(b"\xe9")
    Path("plant.join").write_text(json.dumps(DESCRIPTOR))
    result = call(*arguments)
    assert (2, True) == (result.exit_code, text in result.stderr), result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["member", "list"], "there is no group yet"),
        (["pub", "-t", "a/b", "-m", "x"], "nobody has joined a group here"),
        (["sub", "-t", "a/b", "-i", "pump", "-g", "plant"], "member 'pump' has not joined group 'plant' here"),
        (["sub", "-t", "a/b", "-i", "[x]*"], "member '[x]*' has not joined a group here"),
    ],
)
def test_expected_failure_exits_1_and_says_what_to_do(call: Call, arguments: list[str], text: str) -> None:
    """What cannot be done now is said in a sentence, without a traceback."""
    begin()
    result = call(*arguments)
    assert (1, True) == (result.exit_code, result.stderr.startswith(f"brokerkm: {text}")), result.output


def test_one_of_several_groups_has_to_be_named(call: Call) -> None:
    """Without a running server the store is changed; which group is meant has to be clear."""
    for name in ("depot", "plant"):
        assert call("group", "create", name, "--json", "--sign").exit_code == 0
    assert "brokerkm: there are several groups, so name one: depot, plant\n" == call("member", "list").stderr
    assert "no member yet" in call("member", "list", "-g", "plant").output
    assert "" == call("member", "list", "-g", "plant", "--json").output
    shown = json.loads(call("group", "show", "plant", "--json").output)
    assert (True, 4) == (shown["policy"]["source_authentication"], shown["degree"])
    assert ["depot", "plant"] == [
        json.loads(line)["name"] for line in call("group", "list", "--json").output.split("\n")[:2]
    ]


def test_no_group_is_no_error(call: Call) -> None:
    """An empty list is a result."""
    begin()
    assert (0, "no group yet\n") == (call("group", "list").exit_code, call("group", "list").output)


def test_member_may_be_readmitted_only_after_eviction(call: Call) -> None:
    """What does not fit the member's status is refused, and the listed key is told back."""
    call("group", "create", "plant")
    key = "11" * 32
    assert json.loads(call("member", "add", "pump", key, "--json").output)["identity"] == key
    assert "'pump' was not evicted" in call("member", "readmit", "pump").stderr
    call("member", "evict", "pump")
    assert json.loads(call("member", "readmit", "pump", "--json").output)["status"] == "listed"


def test_invitation_offline_needs_a_url(call: Call) -> None:
    """No server runs that would know the broker, so it has to be named."""
    call("group", "create", "plant")
    assert "name the URL at which the devices reach theirs" in call("invite").stderr
    told = call("invite", "--broker", "mqtts://broker.example", "--uses", "3")
    assert "3 devices may join group plant" in told.output
    assert Path("plant.join").exists()


def test_one_of_several_members_has_to_be_named(call: Call, tmp_path: Path) -> None:
    """The only member that fits is taken; of several, one has to be named."""
    joined(tmp_path / "s", ("plant", "one"), ("plant", "two"), ("depot", "one"))
    result = call("pub", "-t", "a/b", "-m", "x", "-i", "one")
    assert (2, True) == (result.exit_code, "one in depot, one in plant" in result.stderr)
    result = call("pub", "-t", "a/b", "-m", "x", "-i", "two", "--timeout", "5")
    assert (1, True) == (result.exit_code, "cannot reach the broker" in result.stderr)


def test_unreachable_broker_is_named(call: Call) -> None:
    """A server that cannot reach its broker says so."""
    port = free_port()
    result = call("serve", "--broker", f"mqtt://127.0.0.1:{port}")
    assert (1, True) == (result.exit_code, f"cannot reach the broker at 127.0.0.1:{port}" in result.stderr)


def test_password_comes_from_a_file(call: Call, tmp_path: Path) -> None:
    """A password is read from a file, and wanted only with a user name."""
    (tmp_path / "secret").write_text("hunter2\n")
    result = call("serve", "--broker", "mqtt://127.0.0.1:1", "--password-file", "secret")
    assert (2, True) == (result.exit_code, "no password without a user name" in result.stderr)
    assert "hunter2" not in result.output


def test_url_with_password_may_come_from_the_environment(call: Call) -> None:
    """What only the process itself can read may hold a password."""
    result = call("serve", env={"BROKERKM_BROKER": f"mqtt://user:secret@127.0.0.1:{free_port()}"})
    assert (1, True) == (result.exit_code, "cannot reach the broker" in result.stderr)
    assert "secret" not in result.output


def test_help_lists_commands_of_adapters(call: Call) -> None:
    """Commands that other packages bring are listed apart."""
    output = call("--help").output
    assert output.index("Commands of adapters and plugins:") < output.index("zmq-forwarder")
    assert "Usage: brokerkm zmq-forwarder" in call("zmq-forwarder", "--help").output


def test_version_is_the_packages(call: Call) -> None:
    """The version comes from the installed package."""
    assert f"brokerkm {importlib.metadata.version('brokerkm')}\n" == call("--version").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_calls_back(call: Call, shell: str) -> None:
    """The script asks brokerkm itself what fits."""
    assert "_BROKERKM_COMPLETE" in call("completion", shell).output


def test_completion_knows_commands_without_loading_them() -> None:
    """The shell is told our commands."""
    environment = {"_BROKERKM_COMPLETE": "bash_complete", "COMP_WORDS": "brokerkm inv", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['brokerkm']; from brokerkm.cli import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "plain,invite\n" == done.stdout


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_start_loads_nothing_heavy(argument: str) -> None:
    """Help and version need neither cryptography nor a transport, so they are there at once."""
    script = (
        "import sys; sys.argv = ['brokerkm', sys.argv[1]]\n"
        "from brokerkm.cli import main\n"
        "try: main()\n"
        "finally: print('LOADED', *sorted({'cryptography', 'paho', 'zmq', 'asyncio', 'msgpack'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, argument], capture_output=True, text=True, check=True, timeout=60
    )
    assert "LOADED" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("absent.module:command", "command broken (absent.module:command) cannot be loaded: No module named 'absent'"),
        ("brokerkm.errors:Absent", "cannot be loaded"),
        ("brokerkm.errors:Reason", "is no click command"),
    ],
)
def test_broken_command_is_named(target: str, text: str) -> None:
    """A command that cannot be loaded is named with its reason."""
    group = LazyGroup("root", table={"broken": Lazy(target, "Breaks.")})
    result = CliRunner().invoke(group, ["broken"])
    assert (1, True) == (result.exit_code, text in result.stderr)


def test_group_without_plugins_asks_for_none() -> None:
    """Only the root looks for commands of others."""
    group = LazyGroup("root", table={})
    context = click.Context(group)
    assert ([], None) == (group.list_commands(context), group.get_command(context, "zmq-forwarder"))


def test_module_is_the_command() -> None:
    """`python -m brokerkm` is `brokerkm`."""
    done = subprocess.run(
        [sys.executable, "-m", "brokerkm", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("brokerkm ")
