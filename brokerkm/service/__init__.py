"""The key server as a service: requests in, commits stored, messages published, and its administration.

`KeyServer` runs it, `Admin` changes it; `brokerkm.api` serves that to other processes.
"""

from brokerkm.service.admin import Admin
from brokerkm.service.api import AdminApi, GroupInfo, MemberFilter, MemberInfo, Outcome
from brokerkm.service.local import STORE_FILE
from brokerkm.service.server import KeyServer

__all__ = [
    "STORE_FILE",
    "Admin",
    "AdminApi",
    "GroupInfo",
    "KeyServer",
    "MemberFilter",
    "MemberInfo",
    "Outcome",
]
