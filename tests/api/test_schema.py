"""The OpenAPI document is complete, and the running API keeps to it: schemathesis asks it whatever it can think of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from brokerkm.api.app import _ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.running import Running

OPERATIONS = sorted(str(route.operation_id) for route in _ROUTES if route.operation_id != "followEvents")
GROUPS = {"group": "plant"}


@pytest.fixture(scope="module")
def session(running: Running) -> Iterator[requests.Session]:
    """Ask as an admin."""
    with requests.Session() as session:
        session.verify = str(running.authority.path)
        session.headers["Authorization"] = f"Bearer {running.tokens['admin']}"
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def document(running: Running, session: requests.Session) -> dict[str, Any]:
    """Fetch the document."""
    answer = session.get(f"{running.url}/openapi.json", timeout=30)
    assert 200 == answer.status_code
    running.ask("POST", "/v1/groups", {"name": "plant"})
    return cast("dict[str, Any]", answer.json())


def test_every_route_and_error_is_in_the_document(document: dict[str, Any]) -> None:
    """Each route names its role, its errors as problems, and takes an idempotency key if it changes something."""
    operations = {
        operation["operationId"]: (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert {str(route.operation_id) for route in _ROUTES} == operations.keys()
    for method, path, operation in operations.values():
        wanted = {"400", "401", "403", "422", "429", "500", "503"}
        wanted |= {"404"} if "{" in path or path.startswith("/v1/audit") else set()
        wanted |= {"409", "413"} if method != "get" else set()
        assert wanted <= operation["responses"].keys()
        for status in wanted:
            assert ["application/problem+json"] == list(operation["responses"][status]["content"])
        keyed = any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))
        assert keyed == (method != "get" and operation["operationId"] != "importMembers")
        assert operation["x-brokerkm-role"] in ("viewer", "operator", "admin")


@pytest.mark.parametrize(
    ("mode", "existing"),
    [(GenerationMode.POSITIVE, True), (GenerationMode.POSITIVE, False), (GenerationMode.NEGATIVE, False)],
    ids=["existing", "positive", "negative"],
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_api_keeps_to_its_document(  # noqa: PLR0917 - fixtures and parameters
    running: Running,
    session: requests.Session,
    document: dict[str, Any],
    operation: str,
    mode: GenerationMode,
    existing: bool,  # noqa: FBT001 - pytest's
) -> None:
    """Whatever comes, well-formed or not, gets an answer that the document allows, and never a failure."""
    schema = schemathesis.openapi.from_dict(document)
    found = next(one.ok() for one in schema.get_all_operations() if one.ok().definition.raw["operationId"] == operation)
    if existing and "{group}" not in found.path:
        return
    # what is well-formed may still name what is not there, or be out of place now: 404 and 409 are no refusals of form
    skipped = [positive_data_acceptance]
    if operation == "importMembers":  # any text is an import, each of whose rows is refused or not
        skipped.append(negative_data_rejection)

    @settings(
        max_examples=5,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=found.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if existing:
            case.path_parameters = {**(case.path_parameters or {}), **GROUPS}
        case.call_and_validate(
            base_url=running.url, session=session, excluded_checks=skipped, timeout=30, verify=session.verify
        )

    ask()
