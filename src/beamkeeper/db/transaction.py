"""Transactions: one unit of work on one service's database, with a query object for each of its nouns."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from beamkeeper.db.audit_log import AuditLog
from beamkeeper.db.base import Database
from beamkeeper.db.changes import Changes, is_changed, write_changes
from beamkeeper.db.commands import StationCommands
from beamkeeper.db.copied_records import DatasetDocuments, DerivationDocuments, RunDocuments
from beamkeeper.db.copies import Copies
from beamkeeper.db.datasets import Datasets
from beamkeeper.db.downloads import Downloads
from beamkeeper.db.events import Events
from beamkeeper.db.experiments import Experiments
from beamkeeper.db.files import Documents, Files, Ledger, ThumbnailRows
from beamkeeper.db.groups import Groups
from beamkeeper.db.identities import Identities, IdentityLogins
from beamkeeper.db.login_attempts import LoginAttempts
from beamkeeper.db.metadata import MetadataChanges
from beamkeeper.db.mirror import Mirrors
from beamkeeper.db.news import Topic
from beamkeeper.db.people import People
from beamkeeper.db.permissions import PermissionWalks
from beamkeeper.db.proposals import Proposals
from beamkeeper.db.provenance import Derivations
from beamkeeper.db.publishes import Publishes
from beamkeeper.db.replicas import ReplicaOrders, ReplicaRequests, Replicas
from beamkeeper.db.replication import Replication
from beamkeeper.db.run_rules import RunRules
from beamkeeper.db.runs import Runs
from beamkeeper.db.search import Search
from beamkeeper.db.storage import StorageAreas
from beamkeeper.db.storage_tasks import StorageTasks
from beamkeeper.db.syncs import Syncs
from beamkeeper.db.users import Users
from beamkeeper.domain.status import Service


class Transaction:
    """What every service's transaction has: identities and the feed. Made by Database, never by hand."""

    service: Service

    def __init__(self, database: Database[Any], session: Session, now: datetime) -> None:
        self.about: Topic | None = None
        self.database = database
        self.session = session
        self.now = now

    @cached_property
    def events(self) -> Events:
        """The feed of this service."""
        return Events(self.session, self.now)

    @cached_property
    def users(self) -> Users:
        """Users, grants and sessions; written by storage, mirrored elsewhere."""
        return Users(self.session, self.events, self.now)

    @cached_property
    def experiments(self) -> Experiments:
        """Stations, types and experiments; written by storage, mirrored elsewhere."""
        return Experiments(self.session, self.events, self.now)

    @cached_property
    def storage(self) -> StorageAreas:
        """Storage areas; written by storage, mirrored elsewhere."""
        return StorageAreas(self.session, self.events, self.now)

    @cached_property
    def mirror(self) -> Mirrors:
        """The identities as a whole: read at storage, applied elsewhere."""
        return Mirrors(self.session, self.events, self.now)

    @cached_property
    def audit_log(self) -> AuditLog:
        """Who changed what."""
        return AuditLog(self.session, self.now)

    def flush(self) -> None:
        """Send what was added so far, so that its constraints speak now."""
        self.session.flush()

    def finish(self) -> bool:
        """Write the collected events; tell whether there is news for those who wait."""
        self.session.flush()
        return self.events.finish()


class StorageTransaction(Transaction):
    """A transaction of the storage service."""

    service = Service.STORAGE

    @cached_property
    def publishes(self) -> Publishes:
        """Batches on their way from staging to their plain names."""
        return Publishes(self.session, self.now)

    @cached_property
    def metadata(self) -> MetadataChanges:
        """The history of metadata of experiments."""
        return MetadataChanges(self.session, self.now)

    @cached_property
    def people(self) -> People:
        """Accounts that come from a directory, many at a time."""
        return People(self.session, self.events, self.now)

    @cached_property
    def proposals(self) -> Proposals:
        """The facility's proposals, and the roles that follow from them."""
        return Proposals(self.session, self.events, self.now)

    @cached_property
    def syncs(self) -> Syncs:
        """Syncs with the facility's databases."""
        return Syncs(self.session, self.now)

    @cached_property
    def thumbnails(self) -> ThumbnailRows:
        """Small pictures of versions."""
        return ThumbnailRows(self.session, self.now)

    @cached_property
    def groups(self) -> Groups:
        """Groups of experiments in a directory server."""
        return Groups(self.session, self.now)

    @cached_property
    def permissions(self) -> PermissionWalks:
        """Walks through the rights of files."""
        return PermissionWalks(self.session, self.now)

    @cached_property
    def identities(self) -> Identities:
        """People as identity providers know them."""
        return Identities(self.session, self.now)

    @cached_property
    def identity_logins(self) -> IdentityLogins:
        """Logins by identity providers that have begun."""
        return IdentityLogins(self.session, self.now)

    @cached_property
    def login_attempts(self) -> LoginAttempts:
        """Who failed to log in how often."""
        return LoginAttempts(self.session, self.now)

    @cached_property
    def tasks(self) -> StorageTasks:
        """Checks and listings of what is stored."""
        return StorageTasks(self.session, self.now)

    @cached_property
    def copies(self) -> Copies:
        """Copies from one storage area to another."""
        return Copies(self.session, self.now)

    @cached_property
    def commands(self) -> StationCommands:
        """What stations are asked to do."""
        return StationCommands(self.session, self.now)

    @cached_property
    def downloads(self) -> Downloads:
        """What people get back: sets, links, deliveries."""
        return Downloads(self.session, self.now)


class CatalogTransaction(Transaction):
    """A transaction of the catalog service."""

    service = Service.CATALOG

    @cached_property
    def files(self) -> Files:
        """Files, versions and replicas."""
        return Files(self.session, self.now)

    @cached_property
    def ledger(self) -> Ledger:
        """Verifications, and what they prove."""
        return Ledger(self.session, self.now)

    @cached_property
    def replicas(self) -> Replicas:
        """What replicas there are."""
        return Replicas(self.session, self.now)

    @cached_property
    def replica_requests(self) -> ReplicaRequests:
        """What is asked for replicas."""
        return ReplicaRequests(self.session, self.now)

    @cached_property
    def replica_orders(self) -> ReplicaOrders:
        """What is still to be done for replicas."""
        return ReplicaOrders(self.session, self.now)

    @cached_property
    def search(self) -> Search:
        """The search index: what it still has to follow, and what is counted in it."""
        return Search(self.session, self.now)

    @cached_property
    def documents(self) -> Documents:
        """Files as whole documents."""
        return Documents(self.session, self.now)

    @cached_property
    def dataset_documents(self) -> DatasetDocuments:
        """Datasets as whole documents."""
        return DatasetDocuments(self.session, self.now)

    @cached_property
    def run_documents(self) -> RunDocuments:
        """Runs as whole documents."""
        return RunDocuments(self.session, self.now)

    @cached_property
    def derivation_documents(self) -> DerivationDocuments:
        """Links of provenance as whole documents."""
        return DerivationDocuments(self.session, self.now)

    @cached_property
    def changes(self) -> Changes:
        """Which rows changed, in the order of their commits."""
        return Changes(self.session)

    @cached_property
    def replication(self) -> Replication:
        """How far the site's catalogue has followed, as the site keeps it and as the station knows it."""
        return Replication(self.session, self.now)

    def finish(self) -> bool:
        """Write the collected events, and which rows changed under the same number."""
        is_news = super().finish()
        if not is_changed(self.session):
            return is_news
        number = self.events.first
        write_changes(self.session, self.events.next_number() if number is None else number)
        return True

    @cached_property
    def metadata(self) -> MetadataChanges:
        """The history of metadata of files, datasets and runs."""
        return MetadataChanges(self.session, self.now)

    @cached_property
    def datasets(self) -> Datasets:
        """Named sets of files."""
        return Datasets(self.session, self.now)

    @cached_property
    def runs(self) -> Runs:
        """Scans and measurements."""
        return Runs(self.session, self.now)

    @cached_property
    def run_rules(self) -> RunRules:
        """How files come to runs."""
        return RunRules(self.session, self.now)

    @cached_property
    def derivations(self) -> Derivations:
        """What files were made from."""
        return Derivations(self.session, self.now)
