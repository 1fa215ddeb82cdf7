"""The interface is a promise: its document is committed, and a change since the last release needs another version."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.domain.status import Service

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs") / "reference" / "openapi"


def git(*words: str) -> str | None:
    """Return what git says of this clone; None where it has nothing to say."""
    command = ["git", "-C", str(ROOT), "-c", "safe.directory=*", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def last_release() -> str | None:
    """Return the tag of the last release; None before the first."""
    tags = git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD")
    return tags.splitlines()[0] if tags else None


def lacks_a_step(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a document changed while its version did not."""
    return before != now and before["info"]["version"] == now["info"]["version"]


def test_the_committed_documents_are_those_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gen_openapi.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("service", list(Service))
def test_a_change_since_the_last_release_has_another_version(service: Service) -> None:
    now = json.loads((ROOT / FOLDER / f"{service}.json").read_text())
    tag = last_release()
    released = git("show", f"{tag}:{FOLDER / service}.json") if tag else None
    assert released is None or not lacks_a_step(json.loads(released), now), (
        f"the {service} service's interface is not that of {tag}: step API_VERSION in server/app.py"
    )


def test_a_change_without_a_step_is_seen() -> None:
    before = {"info": {"version": "1.0.0"}, "paths": {"/a": {}}}
    changed: dict[str, Any] = {"info": {"version": "1.0.0"}, "paths": {"/a": {}, "/b": {}}}
    assert lacks_a_step(before, changed)
    assert not lacks_a_step(before, before)
    assert not lacks_a_step(before, {**changed, "info": {"version": "1.1.0"}})
