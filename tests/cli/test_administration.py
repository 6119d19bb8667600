"""The administrative commands, run against one key server that is a process of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from api.certificates import Authority
from brokers.process import free_port
from cli.conftest import Machine
from click.testing import CliRunner

from brokerkm.cli.program import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMBERS = ("gauge-1", "pump-1", "pump-2", "pump-3")


class Console:
    """Runs commands in this process, as somebody at the server's machine does."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    def run(self, *arguments: str, text: str | None = None, status: int = 0) -> str:
        """Return what a command printed on standard output, or on the other if it failed."""
        environment = {"XDG_STATE_HOME": str(self.home / "s"), "HOME": str(self.home)}
        done = CliRunner().invoke(program, arguments, prog_name="brokerkm", input=text, env=environment)
        assert status == done.exit_code, done.output
        return done.stderr if status else done.stdout

    def examine(self, *arguments: str) -> tuple[int, str]:
        """Return with what status the doctor ended, and what it printed."""
        done = CliRunner().invoke(program, ("doctor", *arguments), env={"XDG_STATE_HOME": str(self.home / "s")})
        return done.exit_code, done.stdout

    def ask(self, *arguments: str, text: str | None = None) -> list[dict[str, Any]]:
        """Return the lines that a command printed as JSON."""
        return [json.loads(line) for line in self.run(*arguments, "--json", text=text).splitlines()]

    def names(self, *arguments: str) -> list[str]:
        """Return the ids of the members that `member list` shows in the group fleet."""
        return [line["member"] for line in self.ask("member", "list", "-g", "fleet", *arguments)]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """Give a console beside a server that also listens by TLS; the group fleet has four members."""
    home = tmp_path_factory.mktemp("administration")
    authority = Authority(home, "ca")
    certificate, key = authority.issue("server")
    port = free_port()
    (home / "server.toml").write_text(
        f'[api]\nlisten = "127.0.0.1:{port}"\ncert_file = "{certificate}"\nkey_file = "{key}"\n'
    )
    server = Machine(home).serve("--config", str(home / "server.toml"), "--port", "0", "--interval", "0.05")
    server.start()
    try:
        console = Console(home, f"https://127.0.0.1:{port}")
        invitation = str(home / "fleet.join")
        console.run("invite", "-g", "fleet", "--uses", str(len(MEMBERS)), "-o", invitation)
        for member in MEMBERS:
            console.run("join", invitation, "-i", member)
        yield console
    finally:
        server.stop()


@pytest.fixture
def group(console: Console, request: pytest.FixtureRequest) -> str:
    """Give a group of the test's own, without members."""
    name: str = request.node.name.replace("test_", "")[:60]
    console.run("group", "create", name)
    return name


def test_import_of_csv_says_which_rows_are_wrong(console: Console, group: str) -> None:
    """Rows that are right are listed, those that are not are named, and the command fails."""
    rows = f"member,identity\nann,{'11' * 32}\nbob,xyz\nno/slash,{'22' * 32}\ncleo\nann,{'11' * 32}\n"
    told = console.run("member", "import", "-", "-g", group, text=rows, status=1)
    for line in (
        "line 3: bob: identity: an identity is 64 hex digits",
        "line 4: no/slash: ",
        "line 5: : 1 columns, not member and identity, and kem_public if it is to be seated at once",
        "brokerkm: 3 rows were refused: mend them and run the import again",
    ):
        assert line in told
    listed = console.ask("member", "list", "-g", group)
    assert [("ann", "listed", "11" * 32)] == [(one["member"], one["status"], one["identity"]) for one in listed]


def test_import_of_json_lines_may_be_repeated(console: Console, group: str) -> None:
    """What is listed already stays."""
    file = console.home / "devices.jsonl"
    file.write_text("".join(json.dumps({"member": f"d-{n}", "identity": f"{n:064x}"}) + "\n" for n in range(1, 4)))
    first = console.ask("member", "import", str(file), "-g", group)
    assert [(1, "d-1", "added"), (2, "d-2", "added"), (3, "d-3", "added")] == [
        (one["line"], one["member"], one["result"]) for one in first
    ]
    again = console.run("member", "import", str(file), "-g", group)
    assert "0 seated, 0 listed, 3 were there already, 0 refused\n" == again


def test_lists_show_those_that_are_meant(console: Console) -> None:
    """Filters by status, pattern and time narrow the list."""
    assert list(MEMBERS) == console.names()
    assert ["pump-1", "pump-2", "pump-3"] == console.names("--match", "pump-*")
    assert [] == console.names("--status", "evicted", "--match", "gauge-*")
    assert [] == console.names("--unseen", "1h")
    assert ["gauge-1"] == console.names("--unseen", "0s", "--match", "gauge-*")
    assert "no such member\n" == console.run("member", "list", "-g", "fleet", "--match", "x*")


def test_member_is_shown_and_refreshed(console: Console) -> None:
    """A new leaf key comes with a new epoch of the member's seat."""
    (before,) = console.ask("member", "show", "gauge-1", "-g", "fleet")
    assert ("gauge-1", "seated") == (before["member"], before["status"])
    told = console.run("member", "refresh", "gauge-1", "-g", "fleet")
    assert "gauge-1 gets a new leaf key with the next commit\n" == told
    console.run("group", "rotate", "fleet")  # commits what waits with it
    (after,) = console.ask("member", "show", "gauge-1", "-g", "fleet")
    assert after["epoch"] > before["epoch"]
    assert "identity" in console.run("member", "show", "gauge-1", "-g", "fleet")
    assert "'absent'" in console.run("member", "show", "absent", "-g", "fleet", status=2)


def test_evictions_are_tried_before_they_are_made(console: Console) -> None:
    """A dry run changes nothing; ids and filters evict those alone who are meant."""
    meant = ("member", "evict", "-g", "fleet", "--filter", "--match", "pump-[12]")
    assert "pump-1 would be evicted\npump-2 would be evicted\n" == console.run(*meant, "--dry-run")
    assert [] == console.names("--status", "evicted")
    done = console.ask("member", "evict", "-g", "fleet", "pump-3")
    assert [("pump-3", False, True)] == [(one["member"], one["dry_run"], one["published"]) for one in done]
    told = console.run(*meant).splitlines()
    assert ["pump-1 is out: epoch", "pump-2 is out: epoch"] == [line[:20] for line in told]
    assert ["pump-1", "pump-2", "pump-3"] == console.names("--status", "evicted")
    assert "no member is meant\n" == console.run(*meant)
    assert "name the members" in console.run("member", "evict", "-g", "fleet", "--filter", status=2)


def test_group_is_set_frozen_thawed_and_handed_over(console: Console, group: str) -> None:
    """Each command shows what the group is like now."""
    (created,) = console.ask("group", "show", group)
    (changed,) = console.ask("group", "set", group, "--grace", "61", "--root-period", "86400", "--sign")
    assert (61, True, 86400) == (
        changed["policy"]["grace"],
        changed["policy"]["source_authentication"],
        changed["settings"]["root_period"],
    )
    assert console.ask("group", "freeze", group)[0]["frozen"]
    assert "is frozen: thaw it first" in console.run("group", "rotate", group, status=2)
    assert not console.ask("group", "thaw", group)[0]["frozen"]
    assert console.ask("group", "hand-over", group)[0]["server_key"] != created["server_key"]
    assert "say what to change" in console.run("group", "set", group, status=2)
    actions = [one["action"] for one in console.ask("audit", "list", "-g", group)]
    assert ["create", "set", "set-policy", "freeze", "thaw", "hand-over"] == actions


def test_group_is_created_and_set_to_every_term(console: Console, group: str) -> None:
    """All that a group can be given at first can be changed; what is the same already leaves no entry."""
    policy = ("--algorithm", "chacha20-poly1305", "--acknowledge", "10", "--send-when-silent")
    periods = ("--root-period", "86400", "--leaf-period", "7200", "--no-retained")
    terms = (*policy, "--interval", "0.5", "--max-pending", "9", *periods)
    (created,) = console.ask("group", "create", f"{group}-2", *terms)
    (changed,) = console.ask("group", "set", group, *terms)
    for one in (created, changed):
        assert {"algorithm": "chacha20-poly1305", "acknowledge": 10, "stop_when_silent": False}.items() <= one[
            "policy"
        ].items()
        assert one["settings"] == {
            "interval": 0.5,
            "max_pending": 9,
            "root_period": 86400,
            "leaf_period": 7200,
            "retained": False,
        }
    console.run("group", "set", group, *terms)
    (back,) = console.ask("group", "set", group, "--retained", "--algorithm", "aes-256-gcm")
    assert (True, "aes-256-gcm", 10) == (
        back["settings"]["retained"],
        back["policy"]["algorithm"],
        back["policy"]["acknowledge"],
    )
    actions = [one["action"] for one in console.ask("audit", "list", "-g", group)]
    assert ["create", "set", "set-policy", "set", "set-policy"] == actions
    assert "frozen" in console.run("group", "show", group)
    assert "--grace" in console.run("group", "set", group, "--grace", "4294967296", status=2)


def test_group_is_destroyed_once_its_name_is_typed(console: Console, group: str) -> None:
    """Whoever types something else keeps the group; the audit log stays in any case."""
    assert "nothing was done" in console.run("group", "destroy", group, text="fleet\n", status=1)
    console.run("group", "show", group)
    assert f"group {group} is destroyed\n" in console.run("group", "destroy", group, text=f"{group}\n")
    assert "there is no group" in console.run("group", "show", group, status=2)
    console.run("group", "create", group)
    assert [{"group": group, "destroyed": True, "forgotten": True}] == console.ask("group", "destroy", group, "--yes")
    log = console.ask("audit", "list", "-g", group)
    assert ["create", "destroy", "create", "destroy"] == [
        one["action"] for one in log if one["action"] in ("create", "destroy")
    ]


def test_tokens_are_made_listed_and_revoked(console: Console, group: str) -> None:
    """A token that was revoked is not listed any more."""
    file = console.home / "hall.join"
    made = ("token", "create", "-g", group, "--uses", "5", "--pattern", "pump-*", "--note", "hall 7", "-o", str(file))
    assert 5 == console.ask(*made)[0]["uses"]
    (token,) = console.ask("token", "list", "-g", group)
    assert (5, "pump-*", "hall 7") == (token["uses_left"], token["pattern"], token["note"])
    assert json.loads(file.read_text())["token"] not in json.dumps(token)
    assert "hall 7" in console.run("token", "list", "-g", group)
    assert f"token {token['id']} is void\n" == console.run("token", "revoke", token["id"], "-g", group)
    assert "no token: `brokerkm invite` makes one\n" == console.run("token", "list", "-g", group)
    assert "brokerkm: " in console.run("token", "revoke", token["id"], "-g", group, status=2)


def test_status_names_the_groups(console: Console) -> None:
    """It says that the broker is reached, and how each group is."""
    (info,) = console.ask("status")
    assert "connected" == info["broker"]
    told = console.run("status")
    assert "GROUP" in told
    assert "fleet" in told


def test_audit_log_is_exported_and_verified(console: Console, group: str) -> None:
    """The last hash that is exported is the one that is verified."""
    console.run("member", "add", "ann", "33" * 32, "-g", group)
    exported = [json.loads(line) for line in console.run("audit", "export", "-g", group).splitlines()]
    assert [1, 2] == [one["number"] for one in exported]
    (verdict,) = console.ask("audit", "verify", "-g", group)
    assert (True, 2, exported[-1]["hash"]) == (verdict["whole"], verdict["entries"], verdict["hash"])
    told = console.run("audit", "verify", "-g", group)
    assert f"group {group}: 2 entries fit together; the last hash is {verdict['hash']}\n" == told
    assert {"", "fleet", group} <= {one["group"] for one in console.ask("audit", "verify") if one["whole"]}
    for command in ("list", "export", "verify"):
        assert "no audit log of a group 'typo'" in console.run("audit", command, "-g", "typo", status=2)
    assert exported[1:] == console.ask("audit", "list", "-g", group, "--after", "1")
    assert "ann" in console.run("audit", "list", "-g", group)


def test_events_are_followed(console: Console, group: str) -> None:
    """So many as are wanted, of the group and the kinds that are wanted."""
    machine = Machine(console.home)
    arguments = ("events", "--follow", "-g", group, "--kind", "policy", "--kind", "rotate", "-n", "2", "--json")
    following = machine.start(*arguments)
    try:
        grace = 100
        while following.poll() is None and grace < 200:  # it does not say when it has begun to follow
            grace += 1
            console.run("group", "set", group, "--grace", str(grace))
            console.run("group", "rotate", group)
        told, _ = following.communicate(timeout=20)
    finally:
        machine.clean()
    kinds = {json.loads(line)["kind"] for line in told.splitlines()}
    assert (0, {"policy", "rotate"}) == (following.returncode, kinds)


def test_credential_opens_the_server_from_afar(console: Console) -> None:
    """Its role holds over TLS as well, and nothing once it is void."""
    token = console.home / "alice.token"
    (made,) = console.ask("credential", "create", "alice", "--role", "viewer", "-o", str(token))
    assert ("alice", "viewer", str(token)) == (made["name"], made["role"], made["token"])
    assert 0o600 == token.stat().st_mode & 0o777
    assert ["alice"] == [one["name"] for one in console.ask("credential", "list")]
    assert token.read_text().strip() not in console.run("credential", "list")
    far = ("--server", console.url, "--token-file", str(token), "--ca-file", str(console.home / "ca.pem"))
    assert "fleet" in [one["name"] for one in console.ask("group", "list", *far)]
    assert "viewer" in console.run("group", "rotate", "fleet", *far, status=2)
    assert "check --ca-file" in console.run("group", "list", *far[:4], status=1)
    assert "credential alice is void\n" == console.run("credential", "revoke", "alice")
    console.run("group", "list", *far, status=2)


def test_configuration_is_checked(console: Console) -> None:
    """A file that can be used is ok; one that cannot is 1, with each reason."""
    good = console.home / "server.toml"
    assert f"{good}: ok\n" == console.run("config", "check", str(good))
    bad = console.home / "bad.toml"
    bad.write_text("[broker]\nport = 70000\nunknown = 1\n")
    told = console.run("config", "check", str(bad), status=1)
    assert (True, True) == ("broker.port" in told, "broker.unknown" in told)
    found = {"file": str(good), "ok": True, "problems": [], "unchecked": []}
    assert found == console.ask("config", "check", str(good))[0]
    example = console.home / "example.toml"
    example.write_text(console.run("config", "example"))
    assert "ok" in console.run("config", "check", str(example))


def test_doctor_examines_the_running_server(console: Console) -> None:
    """One finding a line, each with its level; a configuration that cannot be read fails."""
    bad = console.home / "worse.toml"
    bad.write_text("[broker]\nport = 'x'\n")
    assert "broker.port" in console.examine("--config", str(bad))[1]
    status, told = console.examine("--config", str(console.home / "server.toml"), "--json")
    findings = [json.loads(line) for line in told.splitlines()]
    failed = [one for one in findings if one["level"] == "fail"]
    assert (1 if failed else 0) == status
    assert {"ok", "warn", "fail"} >= {one["level"] for one in findings}
    assert {"configuration", "store"} <= {one["check"] for one in findings}
