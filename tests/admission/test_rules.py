"""Which rule decides, and what an operator may write down."""

from __future__ import annotations

import json

import pytest

from brokerkm.admission.certificates import CertificateFiles, Verified
from brokerkm.admission.conduct import ConductPolicy, Response
from brokerkm.admission.hook import HookSettings
from brokerkm.admission.policy import AdmissionPolicy
from brokerkm.admission.rules import Action, Applicant, Proof, Returning, Rule, decide
from brokerkm.admission.subject import MemberName, Source
from brokerkm.errors import UsageError

SHOWN = Verified(frozenset({"pump"}), b"\x01" * 32, 1, "CN=pump,O=plant", "CN=root,O=plant")
BY_TOKEN = Applicant("plant", "pump", bytes(32), Proof.TOKEN, b"\x02" * 8)
BY_CERTIFICATE = Applicant("plant", "pump", bytes(32), Proof.CERTIFICATE, certificate=SHOWN)
BY_KEY = Applicant("plant", "pump", bytes(32), Proof.KEY)


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        (Rule(action=Action.DENY), "token certificate key"),
        (Rule(action=Action.DENY, member="p*"), "token certificate key"),
        (Rule(action=Action.DENY, member="P*"), ""),
        (Rule(action=Action.DENY, proofs=frozenset({Proof.TOKEN, Proof.KEY})), "token key"),
        (Rule(action=Action.DENY, issuer="CN=root,*"), "certificate"),
        (Rule(action=Action.DENY, subject="*O=plant"), "certificate"),
        (Rule(action=Action.DENY, certificate="01" * 32), "certificate"),
        (Rule(action=Action.DENY, certificate="02" * 32), ""),
        (Rule(action=Action.DENY, token="02" * 8), "token"),
        (Rule(action=Action.DENY, token="03" * 8), ""),
    ],
)
def test_what_a_rule_is_about(rule: Rule, matched: str) -> None:
    """All that it names has to fit."""
    found = [who.proof.value for who in (BY_TOKEN, BY_CERTIFICATE, BY_KEY) if rule.matches(who)]
    assert matched.split() == found


def test_the_first_rule_decides() -> None:
    """What comes after it is not looked at; without any the default counts."""
    rules = [Rule(action=Action.APPROVE, member="pump"), Rule(action=Action.DENY)]
    assert Action.APPROVE is decide(rules, Action.ALLOW, BY_TOKEN)
    assert Action.DENY is decide(rules[1:], Action.ALLOW, BY_TOKEN)
    assert Action.ALLOW is decide([], Action.ALLOW, BY_TOKEN)


def test_a_key_that_is_known_needs_no_yes() -> None:
    """An operator has listed it, or said yes before; a no counts all the same."""
    assert Action.ALLOW is decide([], Action.APPROVE, BY_KEY)
    assert Action.DENY is decide([], Action.DENY, BY_KEY)


@pytest.mark.parametrize(
    ("covered", "returning", "expected"),
    [
        (Returning.NO, Returning.SAME, Action.DENY),
        (Returning.SAME, Returning.SAME, Action.ALLOW),
        (Returning.SAME, Returning.OTHER, Action.DENY),
        (Returning.OTHER, Returning.OTHER, Action.ALLOW),
        (Returning.OTHER, Returning.NO, Action.ALLOW),
    ],
)
def test_another_key_under_a_known_id(covered: Returning, returning: Returning, expected: Action) -> None:
    """Only a rule that says so lets it in; neither the default nor a rule about everybody does."""
    who = Applicant("plant", "pump", bytes(32), Proof.TOKEN, returning=returning)
    assert expected is decide([Rule(action=Action.ALLOW, returning=covered)], Action.ALLOW, who)


def test_how_a_device_is_recognised() -> None:
    """By its certificate or its token, if it had one."""
    credentials = [who.credential for who in (BY_TOKEN, BY_CERTIFICATE, BY_KEY)]
    assert ["token:" + "02" * 8, "certificate:" + "01" * 32, "key"] == credentials


WHOLE = AdmissionPolicy(
    rules=(
        Rule(action=Action.DENY, member="old-*", note="scrapped"),
        Rule(
            action=Action.APPROVE,
            proofs=frozenset({Proof.CERTIFICATE}),
            issuer="CN=root,*",
            subject="CN=*",
            certificate="0a" * 32,
            returning=Returning.SAME,
        ),
        Rule(action=Action.ALLOW, token="0b" * 8),
    ),
    default=Action.APPROVE,
    certificates=CertificateFiles("/etc/ca.pem", ("/etc/ca.crl",), MemberName(Source.DNS, "", ".example")),
    hook=HookSettings("https://hook.example/a?b=c", "env:HOOK", 1.5, 0.0, "/etc/hook.pem"),
    conduct=ConductPolicy(Response.EVICT, 5, 60, 120),
    most_pending=7,
    pending_expiry=3600,
)


@pytest.mark.parametrize(
    "policy", [WHOLE, AdmissionPolicy(), AdmissionPolicy(hook=HookSettings("http://localhost:8080"))]
)
def test_a_policy_as_text(policy: AdmissionPolicy) -> None:
    """What is written is read back as it was."""
    assert policy == AdmissionPolicy.from_json(policy.to_json())


def test_an_empty_policy() -> None:
    """It is the one that counts without any: whoever has a proof is let in."""
    assert AdmissionPolicy() == AdmissionPolicy.from_json("{}")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the admission policy is not JSON"),
        ("[" * 100_000, "the admission policy is not JSON"),
        ("[]", "the whole has to be a JSON object"),
        ('{"rule": []}', "rule is unknown: did you mean 'rules'"),
        ('{"zzz": []}', "zzz is unknown: there are"),
        ('{"rules": {}}', "rules has to be a list of at most 1000"),
        (json.dumps({"rules": [{"action": "deny"}] * 1001}), "rules has to be a list of at most 1000"),
        ('{"rules": [1]}', "rule 1 has to be a JSON object"),
        ('{"rules": [{"action": "allow"}, {}]}', "rule 2.action has to be one of allow, deny, approve"),
        ('{"rules": [{"action": "deny", "membr": "x"}]}', "rule 1.membr is unknown: did you mean 'member'"),
        ('{"rules": [{"action": "deny", "member": ""}]}', "rule 1.member has to be text"),
        ('{"rules": [{"action": "deny", "member": 5}]}', "rule 1.member has to be text"),
        ('{"rules": [{"action": "deny", "proofs": ["x"]}]}', "rule 1.proofs has to name some of key, token"),
        ('{"rules": [{"action": "deny", "proofs": [1]}]}', "rule 1.proofs has to be a list of texts"),
        ('{"rules": [{"action": "deny", "token": "12"}]}', "rule 1.token has to be the id of a token"),
        ('{"rules": [{"action": "deny", "certificate": "xy"}]}', "rule 1.certificate has to be the SHA-256"),
        ('{"rules": [{"action": "deny", "returning": "yes"}]}', "rule 1.returning has to be no, same or other"),
        ('{"default": "ALLOW"}', "default has to be one of"),
        ('{"certificates": {}}', "certificates.authorities is missing"),
        ('{"certificates": {"authorities": "ca.pem"}}', "certificates.authorities has to be the absolute path"),
        ('{"certificates": {"authorities": "/ca", "member": "x"}}', "does not say where certificates name members"),
        ('{"hook": {}}', "hook.url is missing"),
        ('{"hook": {"url": "ftp://x"}}', "hook.url has to be"),
        ('{"hook": {"url": "https://a:b@x"}}', "hook.url has to be"),
        ('{"hook": {"url": "http://10.0.0.1/admit"}}', "http is for this machine alone"),
        ('{"hook": {"url": "https://x:99999"}}', "hook.url has to be"),
        ('{"hook": {"url": "https://x/\\r\\nA: b"}}', "hook.url has to be"),
        ('{"hook": {"url": "https://x", "secret": "hunter2"}}', "hook.secret has to be a reference"),
        ('{"hook": {"url": "https://x", "secret": "command:id"}}', "hook.secret has to be a reference"),
        ('{"hook": {"url": "https://x", "timeout": 60}}', "hook.timeout has to be a number from 0.1 to 30"),
        ('{"conduct": {"clones": "shoot"}}', "conduct.clones has to be one of report"),
        ('{"conduct": {"changes": true}}', "conduct.changes has to be a whole number"),
        ('{"pending": {"most": -1}}', "pending.most has to be a whole number from 0 to 100000"),
    ],
)
def test_what_is_wrong_with_a_policy(text: str, match: str) -> None:
    """The operator is told which member, and nothing of it counts."""
    with pytest.raises(UsageError, match=match):
        AdmissionPolicy.from_json(text)


def test_a_policy_that_is_too_long() -> None:
    """It is not even parsed."""
    with pytest.raises(UsageError, match="at most 262144 bytes"):
        AdmissionPolicy.from_json(" " * 262_145)
