"""Contact sheets of frames that were never stored: as many as a test likes, with pictures or still without."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from PIL import Image

from beamkeeper.client import Client
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import REGISTER_LIMIT, NewFile
from beamkeeper.domain.frames import NewFrame
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.portal import Site

KINDS = 100
"""So many different pictures there are."""


@contextmanager
def service(site: Site) -> Iterator[Client]:
    """Give a client that acts under the station's service key."""
    key = (site.station.data / "service.key").read_text().strip()
    with Client(site.client.url, token=key, logins=site.station.logins, station="TEST") as made:
        yield made


def catalogued(by: Client, experiment: Experiment, count: int) -> Sequence[NewFile]:
    """Have frames in the catalogue, of which nobody has looked at one."""
    area = experiment.storage_area_uid
    files = [
        new_file(
            f"data/frame_{number:05}.tif",
            experiment_uid=experiment.uid,
            storage_area_uid=area,
            metadata={"format": "TIFF"},
        )
        for number in range(count)
    ]
    for start in range(0, count, REGISTER_LIMIT):
        by.files.register(files[start : start + REGISTER_LIMIT])
    return files


def looked_at(by: Client, experiment: Experiment, files: Sequence[NewFile]) -> None:
    """Do what the station does with frames when there is time."""
    by.thumbnails.keep(experiment.uid, {one.version_uid: picture(n % KINDS) for n, one in enumerate(files)})
    numbers = [{"min": 0, "max": n, "mean": 1.5, "saturated": 0} for n in range(len(files))]
    frames = [NewFrame(version_uid=one.version_uid, numbers=told) for one, told in zip(files, numbers, strict=True)]
    by.files.note_frames(experiment.uid, frames)


@lru_cache(KINDS)
def picture(kind: int) -> bytes:
    """Return a picture as large as those of noisy frames are."""
    noise = np.random.default_rng(kind).integers(0, 16, (128, 128), dtype=np.uint8) * 16
    Image.fromarray(noise).quantize(16).save(made := io.BytesIO(), "png")
    return made.getvalue()
