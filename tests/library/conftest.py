"""One station for all workflows of the library: they are installed and run as at a beamline, by its real services."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamkeeper.testing.station import experiment, station
from library.beamline import Beamline

PICTURES = "LIBRARY_PICTURES"
"""The directory of the documentation's pictures, where they are to be made anew (`make library-pictures`)."""


ON_PARSL = """
[executors.hpc]
provider = "local"
workers_per_node = 2
address = "127.0.0.1"
"""


@pytest.fixture(scope="session", params=["here", pytest.param("parsl", marks=pytest.mark.long)])
def beamline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    """A station; every test on it runs the same definitions on this machine, and again on Parsl by one setting."""
    on_parsl = request.param == "parsl"
    with station(tmp_path_factory.mktemp("library"), settings=ON_PARSL if on_parsl else "") as made:
        client = made.start(environ={"BEAMKEEPER_PROCESSING__ROLES": '["default=hpc"]'} if on_parsl else None)
        yield Beamline(made, client, experiment(client))
        claims = [json.loads(path.read_bytes()) for path in (made.data / "jobs").glob("*/*/claimed.json")]
        assert {(claim["place"] or {}).get("executor") for claim in claims} == {"hpc" if on_parsl else None}


@pytest.fixture
def picture() -> Callable[[Path, str], None]:
    """Give what keeps a result as a picture of the documentation, where one asks for them."""
    directory = os.environ.get(PICTURES)

    def keep(source: Path, name: str) -> None:
        if directory:
            shutil.copyfile(source, Path(directory) / name)

    return keep
