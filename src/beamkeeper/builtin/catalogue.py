"""Registering stored files in the catalogue, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import REGISTER_LIMIT, NewFile, RegisteredAs
from beamkeeper.plugins.api import Catalogue, Options, Processed, ProcessorContext, StoredFile


class CatalogueOptions(Options):
    """There is nothing to set."""


class CatalogueProcessor:
    """Registers each file; what the catalogue refuses fails that file only."""

    options: ClassVar[type[Options]] = CatalogueOptions
    summary: ClassVar[str] = "Registers the files in the catalogue."

    def __init__(self, options: CatalogueOptions) -> None:
        self._options = options

    def process(self, files: Sequence[StoredFile], context: ProcessorContext) -> Sequence[Processed]:
        """Register the files; asking again changes nothing."""
        new = [file.new for file in files]
        answers: list[Processed] = []
        for start in range(0, len(new), REGISTER_LIMIT):
            answers += _register(new[start : start + REGISTER_LIMIT], context.catalogue)
        return answers


def _register(files: Sequence[NewFile], catalogue: Catalogue) -> list[Processed]:
    """Register a batch; one that is refused whole is halved until the file that is at fault stands alone."""
    try:
        registered = catalogue.register(files).files
        hit(FailPoint.REGISTERED)
    except InvalidError as error:
        if len(files) == 1:
            return [Processed(files[0].version_uid, error=error.message)]
        middle = len(files) // 2
        return _register(files[:middle], catalogue) + _register(files[middle:], catalogue)
    return [
        Processed(answer.version_uid, error=answer.message or "the catalogue has other bytes under this path")
        if answer.result is RegisteredAs.CONFLICT
        else Processed(answer.version_uid)
        for answer in registered
    ]
