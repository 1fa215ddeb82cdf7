"""The files that a job is to work on, where a query or a dataset names them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from beamkeeper.cli.datasets import dataset_meant
from beamkeeper.client import Client
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.files import REGISTER_LIMIT, File, FileOrder, FileQuery
from beamkeeper.domain.names import show_path
from beamkeeper.domain.processing import MOST_FILES


def paths(
    client: Client, experiment_uid: UUID | None, query: str | None, dataset: str | None, run: UUID | None = None
) -> list[str]:
    """Return the paths below the experiment, in their order; none where nothing is given."""
    if query is None and dataset is None and run is None:
        return []
    if experiment_uid is None:
        raise InvalidError("say of which experiment the files are, with --experiment NAME")
    wanted = FileQuery(query=query, experiment_uid=experiment_uid, order=FileOrder.PATH, limit=REGISTER_LIMIT)
    found = [] if query is None else list(islice(client.files.find(wanted), MOST_FILES + 1))
    if dataset is not None:
        found += islice(_members(client, experiment_uid, dataset), MOST_FILES + 1)
    if run is not None:
        found += islice((member.file for member in client.runs.files(run)), MOST_FILES + 1)
    if not found:
        raise NotFoundError("there is no such file: `dm file find` and `dm dataset show` say what there is")
    if len(found) > MOST_FILES:
        raise TooLargeError(f"these are more than {MOST_FILES} files, which is the most for one job")
    return list(dict.fromkeys(_text(file) for file in found))


def _members(client: Client, experiment_uid: UUID, name: str) -> Iterator[File]:
    meant = dataset_meant(client, name, None) if _is_uid(name) else client.datasets.named(experiment_uid, name)
    if meant.experiment_uid != experiment_uid:
        raise InvalidError(f'dataset "{meant.name}" is of another experiment: name that with --experiment')
    for member in client.datasets.files(meant.uid):
        if member.file.deleted_at is not None or member.version.uid != member.file.version_uid:
            raise ConflictError(
                f'"{show_path(member.file.relpath)}" has changed or was deleted since the dataset was frozen with '
                f"version {member.version.number}: bring that back, or name the files themselves"
            )
        yield member.file


def _is_uid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _text(file: File) -> str:
    try:
        return bytes(file.relpath).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidError(f'"{show_path(file.relpath)}" is not UTF-8, which the input of a job has to be') from error
