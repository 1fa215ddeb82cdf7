"""Which loops belong to which service, and how they are started and stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.config import Settings
from beamkeeper.core import status as core_status
from beamkeeper.core.offline_tokens import key_of
from beamkeeper.core.sources import Rules as SourceRules
from beamkeeper.core.stored import Objects
from beamkeeper.db.base import new_uid
from beamkeeper.db.storage_tasks import TaskKind
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.limits import Limit
from beamkeeper.domain.status import Service
from beamkeeper.engine.acquire import AcquireLoop
from beamkeeper.engine.ahead import AheadLoop, Staging
from beamkeeper.engine.audit import AuditLoop
from beamkeeper.engine.choosing import ChoosingLoop
from beamkeeper.engine.commands import CommandLoop
from beamkeeper.engine.deferred import DeferredLoop
from beamkeeper.engine.destinations import Destinations
from beamkeeper.engine.index import IndexLoop
from beamkeeper.engine.intake import Rules
from beamkeeper.engine.look import LookLoop
from beamkeeper.engine.manners import Limiter, Manners, set_io_class
from beamkeeper.engine.masters import MastersLoop
from beamkeeper.engine.minding import MindLoop
from beamkeeper.engine.mirror import MirrorLoop
from beamkeeper.engine.pacing import Pacing
from beamkeeper.engine.permission_lanes import PermissionLanes
from beamkeeper.engine.pictures import PicturesLoop
from beamkeeper.engine.pipeline import Limits, Worker
from beamkeeper.engine.problems import Problems
from beamkeeper.engine.process import Chain
from beamkeeper.engine.publish import PublishLanes
from beamkeeper.engine.reap import ReapLoop
from beamkeeper.engine.replicas import ReplicasLoop
from beamkeeper.engine.replicate import ForgetLoop, ReplicateLoop
from beamkeeper.engine.runs import RunRulesLoop
from beamkeeper.engine.scrub import ScrubLoop
from beamkeeper.engine.sending import Sender
from beamkeeper.engine.space import SpaceLoop
from beamkeeper.engine.staging import Stager
from beamkeeper.engine.submit import JobEndsLoop, SubmitLoop
from beamkeeper.engine.sync import SyncLoop
from beamkeeper.engine.tidy import TidyLoop
from beamkeeper.engine.unsent import UnsentLoop
from beamkeeper.engine.wipe import WipeLimits, WipeLoop
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins import load
from beamkeeper.plugins.api import PROCESSORS, FileProcessor, Transfer
from beamkeeper.plugins.rclone import Rclone, rclone_options
from beamkeeper.serve import people
from beamkeeper.serve.processing import jobs_loops, leavings_loops, old_jobs_loops, socket_loops
from beamkeeper.server.deps import Context

logger = logging.getLogger(__name__)

SHORTEST_TIMEOUT_S = 10.0
TOKEN_TIMEOUT_S = 3.0
"""Jobs wait no longer for their tokens: they begin without."""
STOP_S = 15.0
"""How long a loop may take for its last step."""


class Engine:
    """The loops of one service, stopped in the order in which they were given."""

    def __init__(self, loops: Sequence[Loop], before: Callable[[], None] = lambda: None) -> None:
        self._loops = loops
        self._before = before

    def start(self) -> None:
        """Start the loops."""
        self._before()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Let each loop take no step more than the one it is in."""
        for loop in self._loops:
            loop.stop()

    def join(self) -> None:
        """Wait for the last steps; what they leave undone is in the database."""
        for loop in self._loops:
            loop.join(timeout=STOP_S)
            if loop.is_alive():
                logger.warning("loop did not end in time", extra={"loop": loop.name})


def build_engine(context: Context) -> Engine:
    """Return the engine of a service."""
    if context.service is Service.STORAGE:
        database, report = context.database, context.errors.append
        short, long = (TaskKind.STAT, TaskKind.LISTING, TaskKind.DISCARD), (TaskKind.READ,)
        rclone = Rclone(rclone_options(context.settings.transfer))
        context.copies.objects = Objects(rclone)
        looks = [LookLoop(database, kinds, report=report, rclone=rclone) for kinds in (short, long)]
        syncs = SyncLoop(database, people.facility(context.settings), report=report)
        groups = people.group_loops(context.settings, database, report)
        walks = PermissionLanes(database, report=report)
        more = [syncs, *groups, walks, SpaceLoop(database, context.spaces, report=report)]
        return Engine([PublishLanes(database, report=report, rclone=rclone), *looks, *more])
    client = _client(context.settings)
    if context.settings.station.offline_login:
        context.database.offline_key = key_of(read_key(context.settings.service_key_file))
    mirror = MirrorLoop(context.database, client, report=context.errors.append)
    if context.service is Service.CATALOG:
        report = context.errors.append
        index = IndexLoop(context.database, is_busy=lambda: context.bulk.is_any, report=report)
        rules = RunRulesLoop(context.database, report=report)
        choosing = ChoosingLoop(context.database, report=report)
        return Engine([index, rules, choosing, _following(context), mirror])
    if context.service is Service.PROCESSING:
        jobs, starting, reaper = jobs_loops(context, _client(context.settings, timeout_s=TOKEN_TIMEOUT_S, tries=1))
        loops = [*socket_loops(context), *old_jobs_loops(context), *leavings_loops(context)]
        return Engine([*loops, jobs, starting, reaper, mirror], before=reaper.register)
    return _acquisition(context, client, mirror)


def _following(context: Context) -> Loop:
    """Return what carries a catalogue to the site's, where it has one."""
    url, report = context.settings.catalog.site_url, context.errors.append
    if not url:
        return ForgetLoop(context.database, report=report)
    client = _client(context.settings, {Service.CATALOG: url}, tries=1)  # the loop tries again, and tells of a cut
    return ReplicateLoop(context.database, client, report=report)


def _acquisition(context: Context, client: Client, mirror: MirrorLoop) -> Engine:
    settings, report = context.settings, context.errors.append
    transfer, processor = _plugins(settings)
    owner = new_uid()
    reaper = ReapLoop(context.database, owner, lease_s=settings.acquisition.lease_s, report=report)
    workers: list[Worker] = []
    masters = MastersLoop(context.database, client, report=report)
    problems = Problems(settings.acquisition.on_problem, station=settings.station.name, report=report)
    told: dict[str, Any] = {"wake_workers": partial(_wake, workers), "report": report, "tell": problems.tell}
    acquire = AcquireLoop(context.database, SourceRules.of(settings), _rules(settings), **told)
    manners = _manners(settings)
    begin = partial(_begin_sending, settings.acquisition.io_class, report, set())
    pacing = Pacing(partial(load.average_of, settings.transfer))
    sender = Sender(transfer, stall_s=settings.acquisition.stall_s, hold=manners.hold, begin=begin, pacing=pacing)
    destinations = Destinations(context.database, client, sender, **told)
    chain = Chain(settings.acquisition.processors, processor, lambda: client.files)
    limits = Limits(settings.acquisition.batch_files, settings.acquisition.batch_bytes, settings.acquisition.attempts)
    common: dict[str, Any] = {
        "owner": owner,
        "limits": limits,
        "transfer": transfer,
        "stager": Stager(client, sender),
        "destinations": destinations,
        "chain": chain,
        "give_back": partial(_give_back, acquire),
        "report": report,
        "tell": problems.tell,
        "masters": masters,
    }
    workers += [Worker(n, context.database, client, **common) for n in range(settings.acquisition.threads)]
    care = _care(context, client, mirror, owner, problems)
    ahead = _ahead(context, owner, transfer, {"hold": manners.hold, "begin": begin, "pacing": pacing})
    tidy = TidyLoop(context.database, client, transfer, report=report)
    submits = [kind(context.database, client, report=report) for kind in (SubmitLoop, JobEndsLoop)]
    pictures = PicturesLoop(context.database, client, processor, is_busy=partial(_is_busy, workers), report=report)
    commands = CommandLoop(context.database, client, SourceRules.of(settings), report=report)
    unsent = UnsentLoop(context.database, client, report=report, tell=problems.tell)
    first = [commands, unsent, acquire, *workers, *ahead, *submits, _mind(context, manners, acquire)]
    loops = [*first, destinations, *care, tidy, masters, pictures, reaper, problems, mirror]
    return Engine(loops, before=reaper.register)


def _ahead(
    context: Context, owner: UUID, transfer: Callable[[str], Transfer], sending: Mapping[str, Any]
) -> list[Loop]:
    """Return what stages files while they are written, where that is wanted."""
    settings = context.settings.acquisition
    if not settings.ahead_bytes:
        return []
    sender = Sender(lambda name: Staging(transfer(name)), stall_s=settings.stall_s, **sending)
    return [
        AheadLoop(
            context.database,
            context.settings.station.agent,
            owner,
            transfer=transfer,
            sender=sender,
            least_bytes=settings.ahead_bytes,
            report=context.errors.append,
        )
    ]


def _manners(settings: Settings) -> Manners:
    limits = [Limit.of(text) for text in settings.acquisition.limits]
    return Manners(Limiter(limits), rise=settings.acquisition.back_off_at)


def _mind(context: Context, manners: Manners, acquire: AcquireLoop) -> MindLoop:
    return MindLoop(
        context.database,
        manners,
        context.settings.station.name,
        written=acquire.written,
        is_minding=context.settings.acquisition.back_off_at > 0,
        data_dir=context.settings.data_dir,
        report=context.errors.append,
    )


def _begin_sending(io_class: str, report: Report, told: set[str]) -> None:
    """Give a copying thread its I/O class; say once where that cannot be."""
    why_not = set_io_class(io_class)
    if why_not and why_not not in told:
        told.add(why_not)
        report(f"copying: {why_not}; files are copied all the same")


def _give_back(acquire: AcquireLoop, uid: UUID, paths: Sequence[bytes]) -> None:
    if intake := acquire.intake(uid):
        intake.give_back(paths)


def _care(context: Context, client: Client, mirror: MirrorLoop, owner: UUID, problems: Problems) -> list[Loop]:
    """Return the loops that look after what is stored: wiping at the source, scrubs, audits."""
    settings, report = context.settings, context.errors.append
    patience_s, tell = settings.wipe.patience_s, problems.tell
    wipe = WipeLoop(
        context.database,
        # Its requests are sent again while there is patience, and no longer: a plan is refused, not kept waiting.
        _client(settings, timeout_s=max(patience_s, SHORTEST_TIMEOUT_S), tries=1),
        settings.station.agent,
        owner,
        limits=WipeLimits(settings.wipe.heard_within_s, settings.wipe.patience_s, settings.data_dir / "wipes"),
        unheard_s=lambda: _unheard_s(context, mirror),
        report=report,
    )
    rate = settings.acquisition.verify_bytes_s
    return [
        wipe,
        DeferredLoop(client, rate_bytes_s=rate, patience_s=patience_s, report=report, tell=tell),
        ReplicasLoop(client, patience_s=patience_s, report=report),
        ScrubLoop(context.database, client, owner, patience_s=patience_s, report=report, tell=tell),
        AuditLoop(context.database, client, owner, patience_s=patience_s, report=report, tell=tell),
    ]


def _unheard_s(context: Context, mirror: MirrorLoop) -> float:
    """Return how long ago the site was last heard of: by this process's own clock, and as the database knows."""
    with context.database.read() as tx:
        known = core_status.behind_s(tx)
    return float("inf") if known is None else max(known, mirror.behind_s)


def _rules(settings: Settings) -> Rules:
    acquisition = settings.acquisition
    return Rules(
        acquisition.quiet_s,
        acquisition.scan_interval_s,
        canary_s=acquisition.canary_s,
        is_polled=acquisition.poll == "always",
    )


def _wake(workers: Sequence[Loop]) -> None:
    for worker in workers:
        worker.wake()


def _is_busy(workers: Sequence[Worker]) -> bool:
    """Whether files are on their way."""
    return any(worker.is_at_work for worker in workers)


def _plugins(settings: Settings) -> tuple[Callable[[str], Transfer], Callable[[str], FileProcessor]]:
    """Return what gives a plugin by name; each is built once, those of the settings now, so that faults show early."""

    @cache
    def transfer(name: str) -> Transfer:
        return load.transfer_of(settings.transfer, name)

    @cache
    def processor(name: str) -> FileProcessor:
        built: Any = load.build(PROCESSORS, name, settings.processor.get(name, {}))
        return built  # type: ignore[no-any-return]

    for name in settings.acquisition.processors:
        processor(name)
    return transfer, processor


def _client(settings: Settings, elsewhere: Mapping[Service, str] | None = None, **options: Any) -> Client:
    """Return a client that acts under the station's service key; `elsewhere` are services of others."""
    return Client(
        settings.url(Service.STORAGE),
        token=read_key(settings.service_key_file),
        urls={service: settings.url(service) for service in Service} | dict(elsewhere or {}),
        ca=settings.tls.ca_file or None,
        logins=Logins(settings.data_dir / "run" / "no-logins.json"),
        **options,
    )


def read_key(path: Path) -> str:
    """Return the service key; it must be readable by its owner only."""
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
        return path.read_text().strip()
    except FileNotFoundError as error:
        raise SettingsError(
            f"there is no service key {path}: get one with `dm station join`, or run the storage service here first"
        ) from error
