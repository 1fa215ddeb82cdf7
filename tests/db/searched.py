"""Files to be searched, and what a search of them finds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from beamkeeper.domain.files import File, FileQuery
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import Catalogue, new_file
from beamkeeper.testing.queries import NOW, Sample

ALL = Reach(is_all=True)


def fill(catalogue: Catalogue, name: str, files: Sequence[Sample]) -> None:
    uid = catalogue.experiment(name).uid
    with catalogue.database.write() as tx:
        tx.files.register(
            [
                new_file(
                    file.path,
                    experiment_uid=uid,
                    content=b"x" * file.size,
                    modified_at=file.modified,
                    metadata=file.metadata,
                    read_from="device" if file.is_verified else None,
                    verified_at=NOW if file.is_verified else None,
                )
                for file in files
            ],
            by="service",
        )


def simple(path: str, **metadata: Any) -> Sample:
    return Sample(path, 1, NOW - timedelta(days=1), True, metadata)


def index(catalogue: Catalogue) -> None:
    with catalogue.database.write() as tx:
        while tx.search.step(1000):
            pass


def found(catalogue: Catalogue, within: Reach = ALL, **asked: Any) -> list[File]:
    query = FileQuery(**asked)
    files: list[File] = []
    while True:
        with catalogue.database.read() as tx:
            page = tx.files.find(query, within)
        files.extend(page.items)
        if page.next is None:
            return files
        assert page.is_partial or len(page.items) == query.limit
        query = query.model_copy(update={"after": page.next})


def paths(files: Sequence[File]) -> list[str]:
    return [str(file.path) for file in files]
