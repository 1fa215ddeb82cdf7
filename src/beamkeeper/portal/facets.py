"""The values of metadata beside the files that a search found, each of which narrows the search."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from beamkeeper.domain.errors import DmError
from beamkeeper.domain.stats import Facet
from beamkeeper.portal.experiments import shown
from beamkeeper.portal.files import MOST_FACETS, asked, where
from beamkeeper.portal.routes import get
from beamkeeper.portal.visits import Visit, address

SAMPLE = 1000
"""In so many of the files that are found values are counted: in all of them the page would wait for it."""


def values(visit: Visit) -> Response:
    """Show what values keys have in the files that are found: in their place on the page, or by themselves."""
    of = shown(visit) if "uid" in visit.request.path_params else None
    client = visit.at(of.experiment.station) if of else visit.client
    query = asked(visit, of.experiment.uid if of else None).model_copy(update={"order": None, "limit": 100})
    keys = list(dict.fromkeys(visit.query.get("keys", "").split()))[:MOST_FACETS]
    found, message, is_part = None, "", "hx-request" in visit.request.headers
    try:
        found = client.files.facets(keys, query, limit=8, hits=SAMPLE) if keys else None
    except DmError as error:
        if not is_part:
            raise
        message = error.message
    facets = [_shown(visit, where(of), one) for one in found.facets if one.values or one.numbers] if found else []
    return visit.page(
        "files/values_part.html" if is_part else "files/values.html",
        facets=facets,
        counted=found.counted if found and found.is_sample else None,
        message=message,
        back=address(where(of), {**visit.query, "keys": None}),
    )


def _shown(visit: Visit, path: str, facet: Facet) -> dict[str, Any]:
    shown_ = [(one.value, one.files, _narrowed(visit, path, facet.key, one.value)) for one in facet.values]
    return {"key": facet.key, "values": shown_, "numbers": facet.numbers, "other": facet.other}


def _narrowed(visit: Visit, path: str, key: str, value: str) -> str | None:
    """Return the address of the search with one condition more; None where it is a document."""
    text = visit.query.get("q", "").strip()
    if text.startswith("{"):
        return None
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    condition = f'{key} = "{quoted}"'
    changes = {"q": f"({text}) and {condition}" if text else condition, "after": None, "keys": None}
    return address(path, {**visit.query, **changes})


ROUTES = (get("/files/values", values), get("/experiments/{uid}/find/values", values))
