"""Routes of enrollment tokens, which devices join with, and of credentials, which operators ask with."""

from typing import Final

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from brokerkm.api.bodies import (
    Acting,
    CreateCredential,
    CredentialPath,
    GroupPath,
    Invitation,
    Invite,
    Listing,
    TokenPath,
)
from brokerkm.service.api import CredentialInfo, IssuedCredential, TokenInfo
from brokerkm.service.credentials import Role


@post("/groups/{group:str}/tokens", operation_id="createToken", role=Role.OPERATOR, secret=True)
async def create_token(admin: Acting, group: GroupPath, data: JSONBody[Invite]) -> Invitation:
    """Invite devices: make a descriptor with a token that lets its holder join."""
    descriptor = await admin.invite(
        group,
        uses=data.uses,
        lifetime=data.lifetime,
        broker=data.broker,
        pattern=data.pattern,
        note=data.note,
    )
    return Invitation(descriptor.to_json())


@get("/groups/{group:str}/tokens", operation_id="listTokens", role=Role.VIEWER)
async def list_tokens(admin: Acting, group: GroupPath) -> Listing[TokenInfo]:
    """List the tokens that still have uses, oldest first."""
    return Listing(await admin.list_tokens(group), None)


@delete("/groups/{group:str}/tokens/{token:str}", operation_id="revokeToken", role=Role.OPERATOR)
async def revoke_token(admin: Acting, group: GroupPath, token: TokenPath) -> None:
    """Make a token void."""
    await admin.revoke_token(group, token)


@post("/credentials", operation_id="createCredential", role=Role.ADMIN, secret=True)
async def create_credential(admin: Acting, data: JSONBody[CreateCredential]) -> IssuedCredential:
    """Make a bearer token for this API; it is shown this once."""
    return await admin.create_credential(data.name, Role(data.role), lifetime=data.lifetime)


@get("/credentials", operation_id="listCredentials", role=Role.ADMIN)
async def list_credentials(admin: Acting) -> Listing[CredentialInfo]:
    """List the bearer tokens of this API, without their secrets."""
    return Listing(await admin.list_credentials(), None)


@delete("/credentials/{name:str}", operation_id="revokeCredential", role=Role.ADMIN)
async def revoke_credential(admin: Acting, name: CredentialPath) -> None:
    """Make a bearer token void."""
    await admin.revoke_credential(name)


ROUTES: Final[list[HTTPRouteHandler]] = [
    create_token,
    list_tokens,
    revoke_token,
    create_credential,
    list_credentials,
    revoke_credential,
]
