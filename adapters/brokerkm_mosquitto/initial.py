"""What Mosquitto's dynamic security begins with: the key server, who may do all of brokerkm's, and nobody else."""

from __future__ import annotations

import json
from typing import Final

from brokerkm_mosquitto import passwd

SERVER_ROLE: Final = "brokerkm-keyserver"
_CONTROL: Final = "$CONTROL/dynamic-security/#"


def dynamic_security(keyserver: str, password: str, prefix: str) -> str:
    """Return the file that dynamic security reads at its first start."""
    hashed = passwd.hashed(password)
    kinds = ("publishClientSend", "publishClientReceive", "subscribePattern")
    topics = (_CONTROL, f"{prefix}/#", "$SYS/#")
    acls = [
        {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
        for topic in topics
        for kind in kinds
        if topic != "$SYS/#" or kind != "publishClientSend"
    ]
    state = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,  # its default would let an evicted member's subscriptions go on
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            {
                "username": keyserver,
                "textName": "brokerkm's key server",
                "roles": [{"rolename": SERVER_ROLE}],
                "password": hashed.password,
                "salt": hashed.salt,
                "iterations": passwd.ITERATIONS,
            }
        ],
        "groups": [],
        "roles": [{"rolename": SERVER_ROLE, "textname": "brokerkm's key server", "acls": acls}],
    }
    return json.dumps(state, indent=1) + "\n"
