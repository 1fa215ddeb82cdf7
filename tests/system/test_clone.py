"""What the Makefile does with a clone, beside checks and tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib.metadata import requires, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONLY_HERE = {"pip", "setuptools", "ruff", "mypy", "pytest", "hypothesis", "cyclonedx-bom", "playwright"}
"""What checks a clone or brings packages, and no site has to have."""


def named(text: str) -> str:
    """Return the name of a package as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(extra: str) -> set[str]:
    """Return what `beamkeeper[extra]` needs by its own words."""
    ours = [one.partition(";") for one in requires("beamkeeper") or ()]
    return {named(re.split(r"[^\w.-]", what)[0]) for what, _, when in ours if not when or f"'{extra}'" in when}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_list_of_packages_has_all_that_the_server_needs_and_nothing_that_only_a_clone_has() -> None:
    subprocess.run(["make", "sbom", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    written = json.loads((ROOT / "dist/beamkeeper.cdx.json").read_text())
    assert written["bomFormat"] == "CycloneDX"
    ours = written["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("beamkeeper", version("beamkeeper"))
    listed = {named(one["name"]): one for one in written["components"]}
    assert needed("server") <= set(listed)
    assert set(listed) & ONLY_HERE == set()
    assert [name for name, one in listed.items() if not (one["version"] and one["licenses"] and one["purl"])] == []


def test_an_environment_is_not_removed_by_the_interpreter_in_it(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    made = ["sh", str(ROOT / "scripts/make_venv.sh"), str(python), str(tmp_path / "env")]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "name the interpreter that made it" in done.stderr
    assert os.access(python, os.X_OK)
