"""One account: what it is, the roles that it holds, and changing both, for administrators."""

from __future__ import annotations

from pydantic import SecretStr, ValidationError
from starlette.responses import Response

from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.users import STATION_ROLES, NewGrant, Role, UserChange
from beamkeeper.portal.routes import get, post
from beamkeeper.portal.visits import Visit, sentence

SITE_ROLES = (Role.ADMINISTRATOR, *sorted(STATION_ROLES))


def _name(visit: Visit) -> str:
    return str(visit.request.path_params["name"])


def show(visit: Visit) -> Response:
    """Show an account."""
    return _show(visit)


def _show(visit: Visit, message: str = "", status: int = 200) -> Response:
    user = visit.client.users.get(_name(visit))
    stations = {station.uid: station.name for station in visit.client.stations.list()}
    return visit.page(
        "administration/user.html",
        status,
        user=user,
        grants=visit.client.users.grants(user.username),
        stations=stations,
        roles=SITE_ROLES,
        message=message,
    )


def change(visit: Visit) -> Response:
    """Change an account, its password, or whether it is enabled."""
    name, form = _name(visit), visit.form
    try:
        given: dict[str, object] = {key: form.get(key, "") for key in ("full_name", "email", "institution")}
        visit.client.users.change(name, UserChange.model_validate({**given, "is_enabled": "is_enabled" in form}))
        if password := form.raw("password"):
            visit.client.users.set_password(name, SecretStr(password).get_secret_value())
    except ValidationError as error:
        return _show(visit, sentence(error), 422)
    except DmError as error:
        return _show(visit, error.message, 422)
    return visit.go(f"/administration/users/{name}")


def grant(visit: Visit) -> Response:
    """Give a role of the site or of a station."""
    try:
        visit.client.users.grant(_grant(visit))
    except DmError as error:
        return _show(visit, error.message, 422)
    return visit.go(f"/administration/users/{_name(visit)}")


def revoke(visit: Visit) -> Response:
    """Take a role away."""
    visit.client.users.revoke(_grant(visit))
    return visit.go(f"/administration/users/{_name(visit)}")


def _grant(visit: Visit) -> NewGrant:
    try:
        role = Role(visit.form.get("role", ""))
    except ValueError as error:
        raise InvalidError("there is no such role") from error
    station = None
    if role in STATION_ROLES:
        station = visit.client.stations.get(visit.form.get("station", "")).uid
    return NewGrant(username=_name(visit), role=role, station_uid=station)


ROUTES = (
    get("/administration/users/{name}", show),
    post("/administration/users/{name}", change),
    post("/administration/users/{name}/grant", grant),
    post("/administration/users/{name}/revoke", revoke),
)
