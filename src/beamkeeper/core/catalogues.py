"""A catalogue as a whole: exporting its documents, importing them, and checking that it fits together."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError

from beamkeeper.core import files, rights
from beamkeeper.core.replication import refusal
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.catalogues import CheckPage, CheckQuery, DocumentPage, Imported, NewDocuments, Reindexed
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.metadata import check_metadata
from beamkeeper.domain.replication import FileDocument, Refusal
from beamkeeper.domain.users import SITE, Action, Caller, reach, require

IMPORTED = "files.imported"
"""The kind of event that tells of files that were imported."""


def documents(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> DocumentPage:
    """Return one page of the files that are wanted and that the caller may read, as whole documents."""
    page = files.find(tx, caller, query)
    return DocumentPage(items=tuple(tx.documents.named([file.uid for file in page.items])), next=page.next)


def check(tx: CatalogTransaction, caller: Caller, query: CheckQuery) -> CheckPage:
    """Return what does not fit together in a page of the files that the caller looks after; nothing is repaired."""
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.CATALOG_CHECK, query.experiment_uid)
    return tx.documents.check(query, reach(caller, Action.CATALOG_CHECK))


def reindex(tx: CatalogTransaction, caller: Caller) -> Reindexed:
    """Make the search index anew, for administrators: until it is, searches find only what is indexed already."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the catalogue")
    return Reindexed(files=tx.search.rebuild())


def import_(tx: CatalogTransaction, caller: Caller, new: NewDocuments) -> Imported:
    """Add the files of documents that are not here; what is here stays as it is.

    For administrators alone, since documents bring verifications with them, which wiping believes.
    """
    require(caller, Action.CATALOG_IMPORT, SITE, "the catalogue")
    wanted, refused = _acceptable(tx, caller, new)
    held = {document.uid: document for document in tx.documents.named(list(wanted))}
    _, more = tx.documents.add([document for uid, document in wanted.items() if uid not in held])
    refused += more
    gone = {each.uid for each in refused}
    created = tuple(uid for uid in wanted if uid not in held and uid not in gone)
    tx.run_rules.apply(created)
    _tell(tx, [wanted[uid] for uid in created])
    return Imported(
        created=created,
        existing=tuple(uid for uid, document in held.items() if document == wanted[uid]),
        differing=tuple(uid for uid, document in held.items() if document != wanted[uid]),
        refused=tuple(refused),
    )


def _acceptable(
    tx: CatalogTransaction, caller: Caller, new: NewDocuments
) -> tuple[dict[UUID, FileDocument], list[Refusal]]:
    found: dict[UUID, FileDocument] = {}
    refused: list[Refusal] = []
    experiments: dict[UUID, Experiment] = {}
    for each in new.documents:
        try:
            document = FileDocument.model_validate(each)
            check_metadata(document.metadata)
            check_metadata(document.annotations)
            uid = document.experiment_uid
            if uid not in experiments:
                experiments[uid] = rights.experiment(tx, caller, Action.CATALOG_IMPORT, uid)
                rights.check_own(tx, experiments[uid])
            found[document.uid] = document
        except (ValidationError, DmError) as error:
            refused.append(refusal(each, error))
    return found, refused


def _tell(tx: CatalogTransaction, created: Sequence[FileDocument]) -> None:
    for uid in dict.fromkeys(document.experiment_uid for document in created):
        experiment = tx.experiments.get(uid)
        count = sum(document.experiment_uid == uid for document in created)
        tx.events.add(
            NewEvent(
                kind=IMPORTED,
                station_uid=experiment.station_uid,
                experiment_uid=uid,
                data={"count": count},
            )
        )
