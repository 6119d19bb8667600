"""What a rule may say."""

from __future__ import annotations

import json

import pytest

from brokerkm.automation import Rule
from brokerkm.automation.memory import Memory
from brokerkm.errors import StoreError, UsageError
from brokerkm.store.records import Document

ROTATE = {"do": "rotate"}
EVICT = {"do": "evict"}
NOTIFY = {"do": "notify", "url": "https://hook.example/x", "secret": "file:/k"}
NIGHTLY = {"on": "time", "cron": "0 3 * * *"}
SILENT = {"on": "silence", "unseen": 2592000}
HOOK = {"on": "webhook", "secret": "credential:hook"}


@pytest.mark.parametrize(
    ("trigger", "action"),
    [
        (NIGHTLY, ROTATE),
        (NIGHTLY | {"zone": "Europe/Berlin"}, {"do": "rotate", "what": "leaves"}),
        ({"on": "count", "above": 1000, "margin": 50}, NOTIFY),
        ({"on": "count", "below": 0}, {"do": "rotate", "what": "all"}),
        (SILENT, EVICT),
        (SILENT | {"every": 60}, NOTIFY),
        (HOOK, {"do": "evict", "share": 100}),
        (HOOK, NOTIFY | {"url": "http://127.0.0.1:8080"}),
    ],
)
def test_rule_survives_the_store(trigger: dict[str, object], action: dict[str, object]) -> None:
    """What was written down is what is read."""
    rule = Rule.from_fields({"name": "r", "trigger": trigger, "action": action}, 5)
    assert rule == Rule.from_json(rule.to_json())
    assert trigger.items() <= rule.fields["trigger"].items()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], "rule: rule: it has to be an object"),
        ({"name": "r", "trigger": NIGHTLY}, "it has action, name, trigger, and nothing else"),
        ({"name": "r", "trigger": NIGHTLY, "action": ROTATE, "colour": 1}, "nothing else"),
        ({"name": "r" * 9000, "trigger": NIGHTLY, "action": ROTATE}, "nothing else"),
        ({"name": 7, "trigger": NIGHTLY, "action": ROTATE}, "name: it has to be text"),
        ({"name": "../x", "trigger": NIGHTLY, "action": ROTATE}, "is not 1 to 64 characters"),
    ],
)
def test_wrong_fields_are_refused(fields: object, text: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(UsageError, match=text):
        Rule.from_fields(fields, 0)


@pytest.mark.parametrize(
    ("trigger", "action", "text"),
    [
        ({"on": "moon"}, ROTATE, "trigger.on: it has to be one of time, count, silence, webhook"),
        ([], ROTATE, "trigger.on"),
        ({"on": []}, ROTATE, "trigger.on"),
        (NIGHTLY | {"seconds": 1}, ROTATE, "time takes cron, zone"),
        ({"on": "time"}, ROTATE, "time takes cron, zone"),
        ({"on": "time", "cron": ["0"]}, ROTATE, "trigger.cron: it has to be text or a whole number"),
        ({"on": "time", "cron": "* * * * * *"}, ROTATE, "it has 5 fields"),
        ({"on": "time", "cron": "61 * * * *"}, ROTATE, "bad minute"),
        ({"on": "time", "cron": "0 0 30 2 *"}, ROTATE, "bad day-of-month|no such day"),
        (NIGHTLY | {"zone": "Moon/Crater"}, ROTATE, "there is no time zone 'Moon/Crater'"),
        (NIGHTLY | {"zone": "../../etc/passwd"}, ROTATE, "there is no time zone"),
        ({"on": "count"}, ROTATE, "give one of above and below"),
        ({"on": "count", "above": 1, "below": 1}, ROTATE, "give one of above and below"),
        ({"on": "count", "above": True}, ROTATE, "above"),
        ({"on": "count", "above": -1}, ROTATE, "above: it has to be a whole number from 0"),
        ({"on": "count", "above": 1, "margin": 0}, ROTATE, "margin"),
        (SILENT | {"unseen": 59}, EVICT, "unseen: it has to be a whole number from 60"),
        (SILENT | {"every": 10**9}, EVICT, "every"),
        ({"on": "webhook", "secret": "0" * 64}, ROTATE, "secret: it names where the key is"),
        ({"on": "webhook", "secret": "command:rm -rf /"}, ROTATE, "secret: it names where the key is"),
        (NIGHTLY, EVICT, "an eviction needs to know whom"),
        ({"on": "count", "below": 3}, EVICT, "an eviction needs to know whom"),
        (SILENT, ROTATE, "who is silent is evicted or told of"),
        (SILENT, {"do": "evict", "share": 101}, "share: it has to be a whole number from 1 to 100"),
        (NIGHTLY, {"do": "rotate", "what": "tyres"}, "what: it is one of root, all, leaves"),
        (NIGHTLY, NOTIFY | {"url": "http://hook.example"}, "http is for this machine alone"),
        (NIGHTLY, NOTIFY | {"url": "https://user:pass@hook.example"}, "without a password"),
        (NIGHTLY, NOTIFY | {"url": "https://hook.example/\r\nX: y"}, "url"),
        (NIGHTLY, NOTIFY | {"url": "https://[::1"}, "url: it is none"),
        (NIGHTLY, NOTIFY | {"url": "file:///etc/passwd"}, "url"),
    ],
)
def test_nonsense_is_refused(trigger: object, action: object, text: str) -> None:
    """No rule that could not work, or would do what nobody meant."""
    with pytest.raises(UsageError, match=text):
        Rule.from_fields({"name": "r", "trigger": trigger, "action": action}, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 10000, b'{"created": "x"}', b'{"created": 1}'])
def test_damaged_document_is_told(body: bytes) -> None:
    """What is not a rule any more is a store's error that says what to do."""
    with pytest.raises(StoreError, match="remove it and add it again"):
        Rule.from_json(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"seen": [1]}', b'{"seen": 1}'])
def test_damaged_memory_is_told(body: bytes) -> None:
    """So is what is no memory."""
    with pytest.raises(StoreError, match="remove the rule and add it again"):
        Memory.from_document(Document("rule-state", "r", body))


def test_memory_survives_the_store() -> None:
    """And fields that a later version adds do not stop this one."""
    memory = Memory(ran=5, after="x", seen=(("ab", 7),))
    assert memory == Memory.from_document(memory.document("r", 1))
    body = json.dumps(json.loads(memory.document("r", 1).body) | {"later": 1}).encode()
    assert memory == Memory.from_document(Document("rule-state", "r", body))
