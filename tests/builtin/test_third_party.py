"""A beamline adds a processor of its own by installing a package: found by its entry point, built, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beamkeeper.testing.packages import install_processor

PROCESSOR = '''
"""What a beamline might write: it counts the bytes of a file that are a certain letter."""

from beamkeeper.plugins.api import Options, Processed


class CountsOptions(Options):
    letter: str = "a"


class CountsProcessor:
    options = CountsOptions
    summary = "Counts letters."

    def __init__(self, options):
        self.letter = options.letter.encode()

    def process(self, files, context):
        return [Processed(file.new.version_uid, {"count": self.count(file.local_path)}) for file in files]

    def count(self, path):
        return path.read_bytes().count(self.letter)
'''

USE = """
import json, sys
from pathlib import Path
from beamkeeper.domain.errors import SettingsError
from beamkeeper.plugins.api import PROCESSORS, FileProcessor
from beamkeeper.plugins.load import build, installed
from beamkeeper.testing.stored import processor_context, stored_file

processor = build(PROCESSORS, "counts", {"letter": "b"})
(answer,) = processor.process([stored_file(Path(sys.argv[1]))], processor_context())
try:
    build(PROCESSORS, "counts", {"leter": "b"})
except SettingsError as error:
    refusal = str(error)
plugins = [plugin.model_dump() for plugin in installed(frozenset({(PROCESSORS, "counts")}))]
print(json.dumps([isinstance(processor, FileProcessor), answer.metadata, answer.error, refusal, plugins]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a directory of its own."""
    return install_processor(
        tmp_path_factory.mktemp("package"),
        package="beamline-counts",
        name="counts",
        factory="CountsProcessor",
        source=PROCESSOR,
    )


def test_a_package_that_somebody_installs_brings_a_processor(tmp_path: Path, site: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"abracadabra bb")
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "file.txt")],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    is_processor, metadata, error, refusal, plugins = json.loads(done.stdout)
    assert (is_processor, metadata, error) == (True, {"count": 4}, "")
    assert refusal.startswith('plugin "counts": setting "leter" is wrong')
    by_name = {plugin["name"]: plugin for plugin in plugins}
    assert by_name["counts"] == {
        "group": "beamkeeper.processors",
        "name": "counts",
        "package": "beamline-counts",
        "version": "3.2.1",
        "summary": "Counts letters.",
        "is_active": True,
    }
    assert {"copy", "metadata", "catalogue"} <= by_name.keys()
    assert by_name["copy"]["package"] == "beamkeeper"
