"""The configuration file and the environment over it: what is taken, and how what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokerkm.config import ConfigurationError, Secret, load
from brokerkm.config.reading import MAX_FILE


def problems(path: Path, environment: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong, without the file's directory."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, environment or {})
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def written(directory: Path, text: str) -> Path:
    """Return a file with this text."""
    path = directory / "c.toml"
    path.write_text(text)
    return path


def test_without_a_file_all_has_its_default() -> None:
    """Nothing has to be configured."""
    found = load(None, {})
    assert (None, "", 1883, 30, "warning") == (
        found.server.state,
        found.store.url,
        found.broker.port,
        found.defaults.beacon_interval,
        found.telemetry.log_level,
    )


def test_a_file_says_what_differs(tmp_path: Path) -> None:
    """Each type of value is read; a whole number is a number."""
    text = """
    [server]
    state = "/srv/keys"
    [broker]
    url = "mqtts://broker.example:8884"
    username = "keyserver"
    password = "file:/etc/brokerkm/password"
    timeout = 5
    [defaults]
    stop_when_silent = false
    """
    found = load(written(tmp_path, text), {})
    assert (Path("/srv/keys"), "mqtts://broker.example:8884", Secret("file:/etc/brokerkm/password"), 5.0, False) == (
        found.server.state,
        found.broker.url,
        found.broker.password,
        found.broker.timeout,
        found.defaults.stop_when_silent,
    )


def test_the_environment_counts_more_than_the_file(tmp_path: Path) -> None:
    """Variables of other programs, and of our other commands, are none of its business."""
    environment = {
        "BROKERKM_DEFAULTS_DEGREE": "8",
        "BROKERKM_DEFAULTS_STOP_WHEN_SILENT": "no",
        "BROKERKM_BROKER_TIMEOUT": "2.5",
        "BROKERKM_BROKER": "mqtt://elsewhere",
        "BROKERKM_STATE": "/home/me",
        "PATH": "/bin",
    }
    found = load(written(tmp_path, "[defaults]\ndegree = 16\nhold = 9\n"), environment)
    assert (8, 9, False, 2.5) == (
        found.defaults.degree,
        found.defaults.hold,
        found.defaults.stop_when_silent,
        found.broker.timeout,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[broker]\nurll = 'mqtt://b'", "c.toml:2: broker.urll: there is no such key in [broker]; did you mean url?"),
        ("\n[brokr]\nurl = 'x'", "c.toml:2: there is no section [brokr]; did you mean broker?"),
        ("username = 'x'", "c.toml:1: username: a key outside of any section: put it below [broker]"),
        ("[broker]\n\nport = '1883'", "c.toml:3: broker.port: it has to be a whole number, not a text"),
        ("[broker]\nport = true", "c.toml:2: broker.port: it has to be a whole number, not true or false"),
        ("[broker]\nport = 70000", "c.toml:2: broker.port: it has to be at most 65535"),
        ("[defaults]\nmax_silence = 0", "c.toml:2: defaults.max_silence: it has to be at least 1 s"),
        ("[defaults]\ninterval = inf", "c.toml:2: defaults.interval: it has to be finite"),
        ("[defaults]\ninterval = nan", "c.toml:2: defaults.interval: it has to be finite"),
        (
            "[defaults]\nstop_when_silent = 1",
            "c.toml:2: defaults.stop_when_silent: it has to be true or false, not a whole number",
        ),
        ("[defaults]\nsuite = 'rsa'", "c.toml:2: defaults.suite: it has to be one of x25519, mlkem768-x25519"),
        ("[server]\ngroup = 'a/b'", "c.toml:2: server.group: it has to be 1 to 64 of A-Z a-z 0-9 . _ -"),
        ("[server]\nstate = ''", "c.toml:2: server.state: a path cannot be empty: leave the key out"),
        (
            '[server]\ngroup = "a\\u0007"',
            "c.toml:2: server.group: a text of at most 4096 characters, none of them a control",
        ),
        ("[server]\ngroup = ['a']", "c.toml:2: server.group: it has to be a text, not more"),
        ("[store]\nurl = 'mysql://db'", "c.toml:2: store.url: write sqlite:///PATH or postgresql://HOST/DATABASE"),
        ("[broker]\nurl = 'broker.example'", "c.toml:2: broker.url: write a URL: scheme://host:port"),
        ("[broker]\nurl = 'mqtt://[x'", "c.toml:2: broker.url: it is no URL"),
        ("[telemetry]\nlisten = '::1:9'", "c.toml:2: telemetry.listen: an IPv6 address goes into brackets"),
        ("[telemetry]\nlisten = 'here'", "c.toml:2: telemetry.listen: write HOST:PORT, or PORT for this machine"),
        ("[telemetry]\notel_endpoint = 'x:4318'", "c.toml:2: telemetry.otel_endpoint: write http://HOST:PORT"),
        ("[api]\nlisten = '8443'", "c.toml: api.listen: a listener on the network needs cert_file and key_file"),
        ("[broker]\npassword = 'env:P'", "c.toml: broker.password: it needs broker.username"),
        ("[store]\npassword = 'env:P'", "c.toml: store.password: SQLite has no password"),
        ("[defaults]\nprefix = 'a/#'", "c.toml:2: defaults.prefix: "),
        ("a = [", "c.toml: it is not TOML: "),
        ("[server]\nid = 'a'\nid = 'b'", "c.toml: it is not TOML: Cannot overwrite a value (at "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """File, line, key, and what to do."""
    (found,) = problems(written(tmp_path, text))
    assert found.startswith(expected), found


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        (
            "BROKERKM_BROKER_URLL",
            "x",
            "BROKERKM_BROKER_URLL: no key of the configuration; did you mean BROKERKM_BROKER_URL",
        ),
        ("BROKERKM_BROKER_PORT", "many", "BROKERKM_BROKER_PORT: broker.port: it has to be a whole number"),
        (
            "BROKERKM_DEFAULTS_STOP_WHEN_SILENT",
            "perhaps",
            "BROKERKM_DEFAULTS_STOP_WHEN_SILENT: defaults.stop_when_silent: it has to be true or",
        ),
        ("BROKERKM_DEFAULTS_DEGREE", "1", "BROKERKM_DEFAULTS_DEGREE: defaults.degree: it has to be at least 2"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, text: str, expected: str) -> None:
    """It is not taken for an error of the file."""
    (found,) = problems(written(tmp_path, ""), {variable: text})
    assert found.startswith(expected), found


def test_all_problems_are_found_in_one_reading(tmp_path: Path) -> None:
    """Nobody corrects a file one error at a time."""
    text = "[broker]\nport = -1\n[telemetry]\nlog_levl = 'info'\n"
    found = problems(written(tmp_path, text), {"BROKERKM_STORE_URL": "x"})
    assert ["broker.port", "telemetry.log_levl", "store.url"] == [one.split(": ")[1] for one in found]


@pytest.mark.parametrize(
    "text",
    [
        "[broker]\nusername = 'u'\npassword = 'hunter2-hunter2'",
        "[broker]\nurl = 'mqtt://u:hunter2-hunter2@b'",
        "[store]\nurl = 'postgresql://u:hunter2-hunter2@db/x'",
        "[store]\nkey = 'hunter2-hunter2'",
        "hunter = 'hunter2-hunter2'",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    """The message says where it belongs."""
    (found,) = problems(written(tmp_path, text))
    assert "hunter2" not in found
    assert "by reference" in found or "file:PATH" in found or "outside of any section" in found


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Absent, a directory, binary, or far too large."""
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_FILE + 1))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    deep = tmp_path / "deep"
    deep.write_text("a = " + "[" * 100_000)
    expected = ["No such file", "Is a directory", "larger than", "not UTF-8", "nested too deeply"]
    found = [problems(path)[0] for path in (tmp_path / "absent", tmp_path, large, binary, deep)]
    assert [text in line for text, line in zip(expected, found, strict=True)] == [True] * 5, found


_CLIENTS = '[api]\nlisten = "8443"\ncert_file = "a"\nkey_file = "b"\nclient_ca = "c"\n'


@pytest.mark.parametrize("written", ['"console=operator, desk=viewer"', '{ console = "operator", desk = "viewer" }'])
def test_roles_of_client_certificates(tmp_path: Path, written: str) -> None:
    """A text and a table say the same, and so does the environment."""
    path = tmp_path / "brokerkm.toml"
    path.write_text(f"{_CLIENTS}client_roles = {written}\n")
    roles = load(path, {}).api.client_roles
    assert roles is not None
    assert (("console", "operator"), ("desk", "viewer")) == roles.pairs
    path.write_text(_CLIENTS)
    assert roles == load(path, {"BROKERKM_API_CLIENT_ROLES": "console=operator,desk=viewer"}).api.client_roles


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('"console=root"', "the role of a certificate is one of viewer, operator, admin"),
        ('"operator"', "each common name of a certificate has one role"),
        ('"console=admin, console=viewer"', "each common name of a certificate has one role"),
        ("{ console = 3 }", "the role of a certificate is one of"),
        ("7", "NAME=ROLE, NAME=ROLE, or a table"),
    ],
)
def test_roles_that_cannot_be(tmp_path: Path, written: str, said: str) -> None:
    """A slip in a role gives nobody a role."""
    path = tmp_path / "brokerkm.toml"
    path.write_text(f"{_CLIENTS}client_roles = {written}\n")
    with pytest.raises(ConfigurationError, match=said):
        load(path, {})


def test_roles_need_an_authority(tmp_path: Path) -> None:
    """Without client_ca they would never count."""
    path = tmp_path / "brokerkm.toml"
    path.write_text('[api]\nclient_roles = "console=admin"\n')
    with pytest.raises(ConfigurationError, match="without client_ca"):
        load(path, {})
