"""Transactions of the services whose work engines lease: acquisition and processing."""

from __future__ import annotations

from functools import cached_property

from beamkeeper.db.acquisition import Acquisitions
from beamkeeper.db.ahead import AheadOfTheEnd
from beamkeeper.db.announcements import Announcements
from beamkeeper.db.arrivals import Arrivals
from beamkeeper.db.inspections import Inspections
from beamkeeper.db.job_requests import JobRequests
from beamkeeper.db.journal import Journal
from beamkeeper.db.masters import Masters
from beamkeeper.db.offline import OfflineVerifiers
from beamkeeper.db.pauses import Pauses
from beamkeeper.db.pictures import Pictures
from beamkeeper.db.processing import EngineJobs, Jobs
from beamkeeper.db.stagings import Stagings
from beamkeeper.db.transaction import Transaction
from beamkeeper.db.unsent import UnsentExperiments
from beamkeeper.db.wipe_entries import WipeEntries
from beamkeeper.db.wipes import Holds, Wipes
from beamkeeper.db.workers import Workers
from beamkeeper.db.workflows import Workflows
from beamkeeper.domain.status import Service


class EngineTransaction(Transaction):
    """A transaction of a service whose work engines lease."""

    @cached_property
    def workers(self) -> Workers:
        """The engine's processes that hold leases."""
        return Workers(self.session, self.now)


class AcquisitionTransaction(EngineTransaction):
    """A transaction of the acquisition service."""

    service = Service.ACQUISITION

    @cached_property
    def acquisitions(self) -> Acquisitions:
        """DAQs and uploads."""
        return Acquisitions(self.session, self.now)

    @cached_property
    def job_requests(self) -> JobRequests:
        """Jobs that files ask for."""
        return JobRequests(self.session, self.now)

    @cached_property
    def journal(self) -> Journal:
        """Files on their way."""
        return Journal(self.session, self.now)

    @cached_property
    def arrivals(self) -> Arrivals:
        """Files on their way, counted for a whole experiment."""
        return Arrivals(self.session, self.now)

    @cached_property
    def inspections(self) -> Inspections:
        """Scrubs and audits, and what they found."""
        return Inspections(self.session, self.now)

    @cached_property
    def wipes(self) -> Wipes:
        """Plans to wipe directories, and their runs."""
        return Wipes(self.session, self.now)

    @cached_property
    def wipe_entries(self) -> WipeEntries:
        """What is proven of a directory, and what was deleted of it."""
        return WipeEntries(self.session, self.now)

    @cached_property
    def holds(self) -> Holds:
        """What may not be wiped."""
        return Holds(self.session, self.now)

    @cached_property
    def pauses(self) -> Pauses:
        """Storage areas that take nothing at present."""
        return Pauses(self.session, self.now)

    @cached_property
    def ahead(self) -> AheadOfTheEnd:
        """What is staged of files that are still written."""
        return AheadOfTheEnd(self.session, self.now)

    @cached_property
    def unsent(self) -> UnsentExperiments:
        """Experiments that were made here while the site could not be reached."""
        return UnsentExperiments(self.session, self.now)

    @cached_property
    def offline(self) -> OfflineVerifiers:
        """Who may log in here while the site cannot be reached."""
        return OfflineVerifiers(self.session, self.now)

    @cached_property
    def stagings(self) -> Stagings:
        """Staging directories of batches."""
        return Stagings(self.session, self.now)

    @cached_property
    def announcements(self) -> Announcements:
        """Paths whose writer says that they are finished."""
        return Announcements(self.session, self.now)

    @cached_property
    def masters(self) -> Masters:
        """Files that link to others, and which of those are missing."""
        return Masters(self.session, self.now)

    @cached_property
    def pictures(self) -> Pictures:
        """Small pictures that are still to be made."""
        return Pictures(self.session, self.now)


class ProcessingTransaction(EngineTransaction):
    """A transaction of the processing service."""

    service = Service.PROCESSING

    @cached_property
    def workflows(self) -> Workflows:
        """What may be run."""
        return Workflows(self.session, self.now)

    @cached_property
    def jobs(self) -> Jobs:
        """Jobs, as callers ask for them."""
        return Jobs(self.session, self.now)

    @cached_property
    def engine_jobs(self) -> EngineJobs:
        """Jobs, as the engine has them in hand."""
        return EngineJobs(self.session, self.now)
