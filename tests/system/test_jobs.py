"""Jobs of real services, by `dm`: storage and processing alone run a workflow on a plain path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from beamkeeper.client import Client
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.station import Station, station, until

DM = [sys.executable, "-c", "from beamkeeper.cli.app import main; main()"]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Station]:
    with station(tmp_path) as found:
        yield found


def logged_in(made: Station) -> Client:
    """Wait for storage and processing, and return an administrator's client."""
    first = made.data / "first-session.json"
    until(first.exists, "first session")
    client = Client(json.loads(first.read_text())["url"], token=token(made), logins=made.logins, station="TEST")

    def answers() -> bool:
        try:
            return client.status(Service.PROCESSING).service is Service.PROCESSING
        except Exception:  # until it is up, it fails in many ways
            return False

    until(answers, "the processing service")
    return client


def token(made: Station) -> str:
    return str(json.loads((made.data / "first-session.json").read_text())["token"])


def test_a_workflow_runs_on_a_plain_path_without_acquisition(made: Station, tmp_path: Path) -> None:
    made.launch(Service.STORAGE)
    until((made.data / "first-session.json").exists, "first session")
    made.launch(Service.PROCESSING)
    with logged_in(made) as client:
        frame = tmp_path / "it's a $(frame).raw"
        frame.write_text("one two three")
        stages: JsonValue = {"1": {"command": 'wc -w < "$filePath"'}}
        client.workflows.add(checked_definition({"name": "count", "stages": stages}))
        environ = {**os.environ, "BEAMKEEPER_URL": client.url, "BEAMKEEPER_TOKEN": token(made), "HOME": str(tmp_path)}

        def dm(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*DM, *words], env=environ, capture_output=True, text=True, check=False, timeout=90)

        done = dm("job", "submit", "count", f"filePath:{frame}", "--wait", "--json")
        assert done.returncode == 0, done.stderr
        uid = json.loads(done.stdout)["uid"]
        assert dm("job", "log", uid, "-f").stdout.strip() == "3"
        assert "count 1" in dm("job", "list", "--file", str(frame)).stdout
        assert "done" in dm("job", "show", uid).stdout
        original = json.loads(dm("job", "show", uid, "--record").stdout)
        assert (original["status"], original["filePath"]) == ("done", str(frame))
        assert original["workflow"]["stages"]["1"]["childProcesses"]["1"]["stdOut"] == "3\n"
        failed = dm("job", "submit", "count", "filePath:/nowhere/at/all", "--wait")
        assert failed.returncode == 10
        assert "nowhere" in failed.stdout
        assert dm("job", "retry", "--cause", "exit", "--json").returncode == 0
        assert dm("job", "stop", "--all", "--yes").returncode == 0
