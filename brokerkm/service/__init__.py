"""The key server as a service: requests in, commits stored, messages published, and its administration.

`KeyServer` runs it, `Admin` changes it, `open_admin` finds the running one of a state directory or opens its store.
"""

from brokerkm.service.admin import Admin
from brokerkm.service.api import AdminApi, GroupInfo, MemberInfo, Outcome
from brokerkm.service.control import ControlServer
from brokerkm.service.local import STORE_FILE, open_admin
from brokerkm.service.remote import RemoteAdmin
from brokerkm.service.server import KeyServer

__all__ = [
    "STORE_FILE",
    "Admin",
    "AdminApi",
    "ControlServer",
    "GroupInfo",
    "KeyServer",
    "MemberInfo",
    "Outcome",
    "RemoteAdmin",
    "open_admin",
]
