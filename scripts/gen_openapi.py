"""Write the OpenAPI document of each service into docs/reference/openapi; `--check` only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from beamkeeper.config import Settings
from beamkeeper.db import Database
from beamkeeper.domain.status import Service
from beamkeeper.server.app import build_app
from beamkeeper.server.deps import Context

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "openapi"


def document(service: Service) -> dict[str, Any]:
    """Return the document of a service."""
    no_database = cast(Database[Any], None)  # routes are described, none is called
    return build_app(Context(service, Settings(), no_database)).openapi()


def as_text(found: Mapping[str, Any]) -> str:
    """Return a document as it is committed: in one order, so that a change shows as that change."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the documents, or return how many differ from the code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = 0
    for service in Service:
        page = FOLDER / f"{service}.json"
        text = as_text(document(service))
        if page.exists() and page.read_text() == text:
            continue
        stale += 1
        if "--check" in arguments:
            sys.stderr.write(f"{page.name} is not what the code says: run `make openapi`\n")
        else:
            page.write_text(text)
    return stale if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
