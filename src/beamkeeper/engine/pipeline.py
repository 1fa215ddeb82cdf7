"""The workers: a batch goes from ready to available, every step written down before the next.

    ready -> [lookup] -> [transfer to staging] -> staged -> [publish] -> stored -> [processors] -> available

A worker holds its files by a lease; a restart finds what a dead one held and goes on at the step that was not
finished. What fails as a whole (a storage area, the storage service, the catalogue) waits and is never held against
a file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config.failpoints import FailPoint, TroublePoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.job_requests import Wanted
from beamkeeper.db.journal import Batch, Claimed, backoff
from beamkeeper.db.news import Topic
from beamkeeper.db.pictures import WantedPicture
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.errors import DestinationError, DmError, NotFoundError, UnavailableError
from beamkeeper.domain.files import REGISTER_LIMIT, File
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.domain.replicas import WantedReplicas
from beamkeeper.domain.storage import NewPublish, NewPublishItem, Outcome, Publish, PublishState
from beamkeeper.engine import derive, faults
from beamkeeper.engine.destinations import Destinations
from beamkeeper.engine.masters import MastersLoop
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.process import Chain, ChainResult
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.sending import SOURCE
from beamkeeper.engine.staging import Changes, Staged, Stager
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import Discarding, Transfer

J = JournalState
PUBLISH_WAIT_S = 20.0
"""A worker waits so long for a publish, then does something else and looks again later."""

LOOK_AGAIN = timedelta(seconds=2)
PAUSE = timedelta(seconds=2)
"""How long a batch waits when the storage service, the catalogue or its source is not there."""

LONGEST_OUTAGE_PAUSE_S = 10.0


class LeaseLostError(Exception):
    """Another worker has taken files of this batch meanwhile: what was made of it here counts for nothing."""


class NotYetError(Exception):
    """The publish of a batch takes longer: it is looked at again later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one batch may hold, and how often a file may fail by itself before it is quarantined."""

    files: int
    size: int
    attempts: int


class Worker(Loop):
    """Takes batches through all their steps."""

    quiet_s = 4.0

    def __init__(
        self,
        number: int,
        database: Database[AcquisitionTransaction],
        client: Client,
        *,
        owner: UUID,
        limits: Limits,
        transfer: Callable[[str], Transfer],
        stager: Stager,
        destinations: Destinations,
        chain: Chain,
        give_back: Callable[[UUID, Sequence[bytes]], None],
        report: Report,
        tell: Tell,
        masters: MastersLoop,
    ) -> None:
        super().__init__(f"worker {number}", report=report, idle_s=1.0)
        self._database = database
        self._client = client
        self._owner = owner
        self._limits = limits
        self._transfer = transfer
        self._stager = stager
        self._destinations = destinations
        self._chain = chain
        self._give_back = give_back
        self._tell = tell
        self._masters = masters
        self._outages = 0
        self._begun_at = self._now()
        self.is_at_work = False
        """Whether it has a batch in hand: what is less urgent waits for that."""

    def step(self) -> bool:
        """Take one batch as far as it gets."""
        with self._destinations.claiming:
            batch, scene = self._claim()
        if batch is None or scene is None:
            return False
        if not scene.experiment.directory:  # the site has not made it yet: it was cut off
            self._pause(batch, LOOK_AGAIN)
            return True
        self.is_at_work = True
        try:
            return self._take(batch, scene)
        finally:
            self.is_at_work = False

    def _claim(self) -> tuple[Batch | None, Scene | None]:
        with self._database.read() as tx:
            if not tx.journal.is_any_due():  # most often there is nothing: that is found without the lock of writers
                return None, None
        with self._database.write() as tx:
            batch = self._destinations.claim(tx, self._owner, files=self._limits.files, size=self._limits.size)
            return batch, Scene.of(tx, batch.acquisition_uid) if batch else None

    def _take(self, batch: Batch, scene: Scene) -> bool:
        """Take a batch that was claimed as far as it gets."""
        hit(FailPoint.CLAIMED)
        self._begun_at = min((file.staged_at for file in batch.files if file.staged_at), default=self._now())
        try:
            self._advance(batch, scene)
            self._outages = 0
        except LeaseLostError:
            self.warn(f"batch {batch.uid} was taken by another worker meanwhile: what was done here is dropped")
            self._pause(batch)
        except NotYetError:
            self._pause(batch, LOOK_AGAIN)
            return True
        except DestinationError as error:
            hit(TroublePoint.AREA_FAILED)
            self._destinations.fail(scene, batch, str(error.details.get("code", "failed")), error.message)
            hit(TroublePoint.AREA_PAUSED)
            self._pause(batch)
        except UnavailableError as error:
            self._wait_for_service(batch, error)
        except Exception:
            self._pause(batch, PAUSE)
            raise
        if batch.state is J.READY:
            self._destinations.undecided(scene, self._begun_at)
        return True

    def _advance(self, batch: Batch, scene: Scene) -> None:
        stored = batch.files
        if batch.state is J.READY:
            made = self._staged_or_nothing(batch, scene)
            hit(FailPoint.STAGED_WRITTEN)
            stored = self._publish(batch, scene, made.items, made.files) if made.items else ()
        elif batch.state is J.STAGED:
            stored = self._resume(batch, scene)
        if stored:
            self._process(batch, scene, stored)

    def _pause(self, batch: Batch, pause: timedelta = timedelta(0)) -> None:
        """Give back what is still ours, to be gone on with later; nothing of it counts as a fault of a file."""
        with self._database.write() as tx:
            tx.journal.pause(batch, until=tx.now + pause)

    def _wait_for_service(self, batch: Batch, error: UnavailableError) -> None:
        """Nothing can be done for any batch while a service is away: back off, and let the others do as well."""
        self.failed(error)
        self._pause(batch, PAUSE)
        if error.details.get("code") != SOURCE:
            self._outages += 1
            pause_s = min(LONGEST_OUTAGE_PAUSE_S, 0.25 * 2 ** min(self._outages, 8))
            self._stopping.wait(pause_s * random.uniform(0.5, 1.0))

    # ready -> staged

    def _staged_or_nothing(self, batch: Batch, scene: Scene) -> Staged:
        """Stage a batch; where that fails nothing of it stays: its staging directory is of this try only."""
        try:
            made = self._stage(batch, scene)
        except BaseException as error:
            # What hangs would hang here as well: it is discarded later, as is what cannot be now.
            if not (isinstance(error, DestinationError) and error.details.get("code") == "hanging"):
                with suppress(DmError):
                    self._discard(batch, scene)
            raise
        if not made.items:
            self._discard(batch, scene)
        return made

    def _discard(self, batch: Batch, scene: Scene) -> None:
        transfer = self._transfer(scene.area.transfer)
        if not isinstance(transfer, Discarding):
            return  # left over: the storage is asked to remove it
        transfer.discard(scene.staging(batch.uid))
        hit(TroublePoint.STAGING_DISCARDED)
        with self._database.write() as tx:
            tx.stagings.forget(batch.uid)

    def _stage(self, batch: Batch, scene: Scene) -> Staged:
        present = self._stager.present(batch, scene)
        unchanged = {file.id for file in self._stager.unchanged(batch, scene, present)}
        self._want_copies(scene, [f for f in batch.files if f.id in unchanged], present)
        reason = {"reason_code": "unchanged", "reason": "it is stored already, and has not changed"}
        self._step(batch, J.SKIPPED, dict.fromkeys(unchanged, reason), free=True)
        todo = [file for file in batch.files if file.id not in unchanged]
        made = self._stager.send(batch, scene, todo, present, lambda: self.is_stopping)
        self._want_copies(scene, [file for file in todo if file.id in made.same], present)
        self._step(batch, J.AVAILABLE, made.same, free=True)
        hit(FailPoint.STAGED_WRITING)
        self._step(batch, J.STAGED, made.staged, free=False)
        self._settle_faults(batch, made.faults)
        return made

    def _want_copies(self, scene: Scene, files: Sequence[Claimed], present: Mapping[RelPath, File]) -> None:
        """Have files in the further storage areas as well that are stored already."""
        found = [present.get(scene.path(file)) for file in files] if scene.also else []
        if uids := [file.version_uid for file in found if file is not None]:
            by = scene.acquisition.started_by
            for start in range(0, len(uids), REGISTER_LIMIT):
                part = tuple(uids[start : start + REGISTER_LIMIT])
                wanted = WantedReplicas(version_uids=part, storage_area_uids=scene.also, asked_by=by)
                self._client.replicas.want(wanted)

    # staged -> stored

    def _publish(
        self, batch: Batch, scene: Scene, items: Sequence[NewPublishItem], files: Sequence[Claimed]
    ) -> Sequence[Claimed]:
        hit(FailPoint.PUBLISH_ASKING)
        self._client.publishes.request(
            NewPublish.model_construct(
                uid=batch.uid,
                experiment_uid=scene.experiment.uid,
                verify=scene.acquisition.verify,
                items=tuple(items),
            )
        )
        hit(FailPoint.PUBLISH_ASKED)
        return self._await_publish(batch, scene, files)

    def _resume(self, batch: Batch, scene: Scene) -> Sequence[Claimed]:
        """Go on with a batch that was staged: its publish was asked for, or is now.

        It is never taken back, for who held it before may be about to ask: the same uid gives the same publish,
        and what is not in staging any more comes back as missing.
        """
        try:
            return self._await_publish(batch, scene, batch.files)
        except NotFoundError:
            return self._publish(batch, scene, self._stager.items_again(batch, scene), batch.files)

    def _await_publish(self, batch: Batch, scene: Scene, files: Sequence[Claimed]) -> Sequence[Claimed]:
        """Wait for a publish, write down what became of files, and return those that are stored, as they are now."""
        publish: Publish = self._client.publishes.get(batch.uid, wait_s=PUBLISH_WAIT_S)
        if publish.trouble:
            self._destinations.fail(scene, batch, publish.trouble, publish.message)
        if publish.state is not PublishState.DONE:
            raise NotYetError
        by_version = {item.version_uid: item for item in publish.items}
        stored: Changes = {}
        alike: dict[object, dict[str, Any]] = {}
        now: list[Claimed] = []
        found: list[tuple[Claimed, Exception]] = []
        for file in files:
            item = by_version.get(file.version_uid)
            if item is not None and item.outcome is Outcome.STORED:
                values = {"stored_at": item.stored_at, "read_from": item.read_from}
                stored[file.id] = alike.setdefault((item.stored_at, item.read_from), values)
                now.append(replace(file, **stored[file.id]))
            else:
                found.append((file, faults.of_item(item) if item else faults.unsent()))
        hit(FailPoint.STORED_WRITING)
        if stored and not publish.trouble:
            self._destinations.works(scene, self._begun_at)  # before the step, so that no crash comes between
        # Where all went well, the storage has removed the staging directory.
        self._step(batch, J.STORED, stored, free=False, forget=None if found else batch.uid)
        hit(FailPoint.STORED_WRITTEN)
        self._settle_faults(batch, found)
        return now

    # stored -> available

    def _process(self, batch: Batch, scene: Scene, held: Sequence[Claimed]) -> None:
        results: dict[UUID, ChainResult] = self._chain.run(held, scene, stop=lambda: self.is_stopping)
        done: Changes = {}
        again: Changes = {}
        found: list[tuple[Claimed, Exception]] = []
        available = {"available_at": self._now(), "attempts": 0, "reason": "", "reason_code": ""}
        for file in held:
            result = results[file.version_uid]
            if not result.error:
                done[file.id] = available
            elif file.attempts + 1 >= self._limits.attempts or result.is_final:
                found.append((file, result.as_error()))
            else:
                pause = self._now() + backoff(file.attempts + 1)
                again[file.id] = {"attempts": file.attempts + 1, "next_at": pause, "reason": result.error[:2000]}
        self._masters.note(scene, [results[file.version_uid].passed for file in held if file.id in done])
        if scene.acquisition.made_by is not None and done:
            made = {scene.path(file): file.number for file in held if file.id in done}
            derive.record(self._client, scene.acquisition.made_by, scene.experiment.uid, made, report=self.warn)
        hit(FailPoint.AVAILABLE_WRITING)
        pictures = [picture for file in held if file.id in done and (picture := results[file.version_uid].picture)]
        jobs = scene.wanted(file for file in held if file.id in done)
        self._step(batch, J.AVAILABLE, done, free=True, jobs=jobs, pictures=pictures)
        hit(FailPoint.AVAILABLE_WRITTEN)
        self._step(batch, J.STORED, again, free=True)
        self._settle_faults(batch, found)
        if done:
            self._masters.stir(scene.experiment.uid)
            also = {Topic.PICTURES: pictures, Topic.WANTED_JOBS: scene.acquisition.workflow}
            self._database.tell(Topic.AVAILABLE, *(topic for topic, wanted in also.items() if wanted))

    # What goes wrong with single files.

    def _settle_faults(self, batch: Batch, found: Sequence[tuple[Claimed, Exception]]) -> None:
        now = self._now()
        decided = [
            (file, error, faults.after_fault(file, error, now, most_attempts=self._limits.attempts))
            for file, error in found
        ]
        for state in (J.CANDIDATE, J.READY, J.QUARANTINED):
            changes = {file.id: decision.values for file, _, decision in decided if decision.state is state}
            self._step(batch, state, changes, free=True)
        if changed := [file.path for file, _, decision in decided if decision.state is J.CANDIDATE]:
            self._give_back(batch.acquisition_uid, changed)
        quarantined = [(file, error) for file, error, decision in decided if decision.state is J.QUARANTINED]
        if quarantined:
            self._tell_of_quarantine(batch, [file.path for file, _ in quarantined], str(quarantined[-1][1]))

    def _tell_of_quarantine(self, batch: Batch, paths: Sequence[bytes], why: str) -> None:
        with self._database.read() as tx:
            acquisition = tx.acquisitions.get(batch.acquisition_uid)
        self._tell(about(ProblemKind.FILES_QUARANTINED, acquisition, f"files are quarantined: {why}", paths))

    def _step(
        self,
        batch: Batch,
        state: JournalState,
        changes: Changes,
        *,
        free: bool,
        jobs: Sequence[Wanted] = (),
        pictures: Sequence[WantedPicture] = (),
        forget: UUID | None = None,
    ) -> None:
        """Write a step down for all of these files, or for none where not all of them are ours any more."""
        if changes:
            with self._database.write() as tx:
                if tx.journal.step(batch, state, changes, free=free) < len(changes):
                    raise LeaseLostError
                tx.job_requests.add(batch.acquisition_uid, jobs)
                tx.pictures.add(pictures)
                if forget is not None:
                    tx.stagings.forget(forget)

    def _now(self) -> datetime:
        return datetime.now(UTC)
