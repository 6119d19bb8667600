"""SIGHUP: what can change in a running server changes, what cannot is named; a broken file changes nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from brokerkm.config import ConfigurationError, address, difference
from brokerkm.config.terms import terms
from brokerkm.errors import UsageError
from brokerkm.service.limits import RequestLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokerkm.api import ApiServer, TlsListener
    from brokerkm.api.gate import Limits as ApiLimits
    from brokerkm.config import Configuration
    from brokerkm.config.sections import Api, Limits
    from brokerkm.service import KeyServer
    from brokerkm.telemetry.logs import Logs
    from brokerkm.transport import Transport

_log = logging.getLogger(__name__)


def request_limits(limits: Limits) -> RequestLimits:
    """Return the section as the server takes it."""
    return RequestLimits(
        member=(limits.member_rate, limits.member_burst),
        total=(limits.total_rate, limits.total_burst),
        spare=(limits.spare_rate, limits.spare_burst),
        refusals=(limits.refusal_rate, limits.refusal_burst),
    )


def tls_listener(api: Api) -> TlsListener | None:
    """Return where the API listens for others, and as whom; None if it does not."""
    from brokerkm.api import TlsListener  # noqa: PLC0415 - not for --help
    from brokerkm.service.credentials import Role  # noqa: PLC0415

    if not api.listen or api.cert_file is None or api.key_file is None:
        return None
    host, port = address.parse(api.listen)
    named = () if api.client_roles is None else api.client_roles.pairs
    roles = {name: Role(role) for name, role in named}
    return TlsListener(host, port, api.cert_file, api.key_file, api.client_ca, roles)


def api_rates(api: Api) -> ApiLimits | None:
    """Return how often callers may ask."""
    try:
        from brokerkm.api.gate import Limits  # noqa: PLC0415 - Litestar, for who serves only
    except ImportError:
        return None  # `ApiServer` says what is missing
    return Limits(credential=(api.rate, api.burst), peer=(2 * api.rate, 2 * api.burst))


class Reloading:
    """Brings a running server to a new configuration.

    Args:
        configuration: the one that it runs with.
        load: reads the configuration again; raises `ConfigurationError`.
    """

    def __init__(
        self,
        configuration: Configuration,
        load: Callable[[], Configuration],
        *,
        server: KeyServer,
        transport: Transport,
        api: ApiServer,
        logs: Logs,
    ) -> None:
        self._configuration = configuration
        self._load: Final = load
        self._server: Final = server
        self._transport: Final = transport
        self._api: Final = api
        self._logs: Final = logs

    def reload(self) -> None:
        """Read the configuration and apply what can be applied; says in the log what became of it."""
        try:
            new = self._load()
            password = None if new.broker.password is None else new.broker.password.read()
            if (tls := tls_listener(new.api)) is not None:
                self._api.renew(tls)  # the files may be new ones under the same names
        except UsageError as error:
            problems = error.problems if isinstance(error, ConfigurationError) else (error,)
            _log.error("the configuration cannot be used; the old one stays: %s", "; ".join(map(str, problems)))
            return
        changes = difference(self._configuration, new)
        waiting = list(changes.restart)
        if password is not None and not self._renew(password):
            waiting += [name for name in changes.live if name == "broker.password"]
        self._logs.configure(new.telemetry.log_level, new.telemetry.log_format)
        if changes.live:
            self._apply(new)
        self._configuration = new
        applied = [name for name in changes.live if name not in waiting]
        _log.warning("the configuration was read again: %s", ", ".join(applied) or "nothing changes")
        if waiting:
            _log.warning("restart the server to change %s", ", ".join(waiting))

    def _apply(self, new: Configuration) -> None:
        """Take over rates and what new groups begin with."""
        if self._server.requests is not None and new.limits != self._configuration.limits:
            self._server.requests.limit(request_limits(new.limits))
        if new.api != self._configuration.api and (rates := api_rates(new.api)) is not None:
            self._api.limit(rates)
        self._server.terms = terms(new.defaults)
        self._server.pace(new.defaults.interval, new.defaults.max_pending)

    def _renew(self, password: str) -> bool:
        """Use `password` from the next connection on; return whether the adapter can do that."""
        self._logs.redaction.hide([password])
        renew: Callable[[str], None] | None = getattr(self._transport, "renew_password", None)
        if renew is None:
            return False
        renew(password)
        return True
