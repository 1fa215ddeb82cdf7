"""The founding paper's pipeline of beamline 8-ID: GridFTP to a cluster, its scheduler, GridFTP back; all real."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.library.__main__ import main
from beamkeeper.testing.grid import Authority, gsi_gridftp
from beamkeeper.testing.speckles import DIFFUSION, apart
from beamkeeper.testing.station import experiment, station
from library.beamline import Beamline

ON_PARSL = """
[executors.hpc]
provider = "{provider}"
options = {options}
workers_per_node = 2
address = "127.0.0.1"
"""
PROVIDERS = {
    "slurm": {"provider": "slurm", "options": '{ partition = "batch", exclusive = false, cmd_timeout = 30 }'},
    "sge": {"provider": "grid-engine", "options": '{ queue = "all.q", cmd_timeout = 30 }'},
}
QUEUES = {"slurm": "batch", "sge": "all.q"}
OPTIONS = "--rings 6 --q-min 0.0028 --q-max 0.0095"


@pytest.fixture(params=["slurm", pytest.param("sge", marks=pytest.mark.long)])
def scheduler(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, str]]:
    """A scheduler, and what its commands need to find it."""
    fixture = {"slurm": "slurm_server", "sge": "grid_engine_server"}[request.param]
    return request.param, request.getfixturevalue(fixture).environment


@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_parsl", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_pipeline_finds_the_relaxation_time_on_either_scheduler(
    scheduler: tuple[str, Mapping[str, str]],
    tmp_path: Path,
    open_to_all: Path,
    picture: Callable[[Path, str], None],
    on_parsl: bool,
) -> None:
    """By hand on this machine; and from a DAQ in a block of nodes that Parsl has from the scheduler, by one setting."""
    name, needed = scheduler
    authority = Authority(open_to_all)
    badge = {"X509_USER_PROXY": authority.proxy("ada"), "X509_CERT_DIR": authority.trusted}
    variables = [f"{key}={value}" for key, value in {**needed, **badge}.items()]
    told = {"BEAMKEEPER_PROCESSING__ENVIRONMENT": json.dumps(variables)}
    if on_parsl:
        told |= {**needed, "BEAMKEEPER_PROCESSING__ROLES": '["default=hpc"]'}
    with (
        station(tmp_path, settings=ON_PARSL.format_map(PROVIDERS[name]) if on_parsl else "") as made,
        gsi_gridftp(authority, common_name="ada", acts_as=getpass.getuser()) as grid,
    ):
        client = made.start(environ=told)
        beamline = Beamline(made, client, experiment(client))
        cluster = grid.url(Path("/")).rstrip("/")
        settings = [f"cluster:{cluster}", f"directory:{open_to_all}", f"scheduler:{name}", f"queue:{QUEUES[name]}"]
        beamline.dm("workflow", "install", "xpcs-8id", *settings)
        _work_on(beamline, tmp_path / "seen", is_daq=on_parsl)
        with h5py.File(beamline.local("analysis/xpcs/brown 1.h5")) as opened:
            q, rates = (opened[f"xpcs/multitau/{key}"][()] for key in ("q", "rate"))
        assert 1 / rates == pytest.approx(1 / (DIFFUSION * q**2), rel=0.1)
        assert np.isfinite(rates).all()
        kept = beamline.file("data/brown 1.h5").metadata["xpcs"]
        assert kept == {"of": "data/brown 1.h5", "options": OPTIONS.split()}
        assert "data/brown 1.h5" in beamline.dm("why", "analysis/xpcs/brown 1.h5")
        picture(beamline.local("analysis/xpcs/brown 1.svg"), "xpcs-8id.svg")
        claims = [json.loads(path.read_bytes()) for path in (made.data / "jobs").glob("*/*/claimed.json")]
        assert {(claim["place"] or {}).get("executor") for claim in claims} == {"hpc" if on_parsl else None}


def _work_on(beamline: Beamline, directory: Path, *, is_daq: bool) -> None:
    """Have a file worked on, until that is done."""
    directory.mkdir()
    if is_daq:
        daq = beamline.watch(directory, "xpcs-8id", options=OPTIONS)
        apart(directory / "brown 1.h5")
        beamline.started("xpcs-8id")
        beamline.client.daqs.stop(daq.uid)
    else:
        apart(directory / "brown 1.h5")
        beamline.keep(directory / "brown 1.h5")
        beamline.run("xpcs-8id", "data/brown 1.h5", options=OPTIONS)


def test_options_with_an_open_quote_are_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cluster", "ftp://hpc", "--directory", "/scratch", "--job", "1", "--options", '--rings "6']
    assert main(["xpcs_8id", "/data/a.h5", *words]) == 1
    assert capsys.readouterr().err == "--options cannot be read (no closing quotation): '--rings \"6'\n"
