"""Which loops the processing service has, from the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from beamkeeper.client import Client
from beamkeeper.config import Settings, curve
from beamkeeper.config.values import split_address
from beamkeeper.core.job_sessions import LIFE
from beamkeeper.core.processing import JobRules
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import NotFoundError, SettingsError
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs import loop as jobs
from beamkeeper.engine.jobs.carrying import Staging
from beamkeeper.engine.jobs.hold import JobsHeld
from beamkeeper.engine.jobs.leavings import LeavingsLoop
from beamkeeper.engine.jobs.loop import JobsLoop
from beamkeeper.engine.jobs.messages import Messages
from beamkeeper.engine.jobs.old import OldJobsLoop
from beamkeeper.engine.jobs.orders import RunRules
from beamkeeper.engine.jobs.places import LOCAL
from beamkeeper.engine.jobs.remote import ExecutorSpec
from beamkeeper.engine.jobs.sessions import JobSessions
from beamkeeper.engine.jobs.socket import Place, SocketLoop
from beamkeeper.engine.jobs.starting import StartLoop
from beamkeeper.engine.reap import ReapLoop
from beamkeeper.plugins.api import Fetching
from beamkeeper.plugins.executors import EXECUTORS
from beamkeeper.plugins.load import checked_options
from beamkeeper.server.deps import Context

SHARED = "shared"
_CARRIES = {"file": "copy", "rsync+ssh": "rsync"}
"""Which transfer carries to addresses of a scheme that has another name."""

SLOTS = 100
"""How many commands an executor takes at once, unless its table says."""


def jobs_loops(context: Context, client: Client) -> tuple[JobsLoop, StartLoop, ReapLoop]:
    """Return the loop that runs jobs, what begins their commands, and what takes up what dead processes had in hand."""
    settings, report, owner = context.settings, context.errors.append, new_uid()
    processing = settings.processing
    processing.work.mkdir(mode=0o711, parents=True, exist_ok=True)
    limits = {name: int(number) for name, number in _pairs(processing.workflow_limits)}
    executors, roles = executor_specs(settings)
    numbers = jobs.Settings(settings.station.name, processing.slots, limits, executors, roles)
    sessions = JobSessions(client, _addresses(settings), report=report)
    with context.database.read() as tx:
        sessions.end_before(tx.engine_jobs.ended_since(tx.now - LIFE))
    starting = StartLoop(context.database, sessions, report=report)
    rules = run_rules(settings)
    loop = JobsLoop(context.database, owner, rules, numbers, report=report, sessions=sessions, starting=starting)
    held = JobsHeld(owner, loop.take_up)
    return loop, starting, ReapLoop(context.database, owner, lease_s=processing.lease_s, report=report, held=held)


def old_jobs_loops(context: Context) -> list[OldJobsLoop]:
    """Return the loop that removes what old jobs wrote, unless the settings keep it for ever."""
    processing, report = context.settings.processing, context.errors.append
    if not processing.keep_days:
        return []
    return [OldJobsLoop(context.database, processing.work, processing.keep_days, report=report)]


def leavings_loops(context: Context) -> list[LeavingsLoop]:
    """Return the loop that removes what was sent to executors, where one is sent anything."""
    specs, _ = executor_specs(context.settings)
    places = {spec.directory: spec.staging for spec in specs.values() if spec.staging is not None}
    return [LeavingsLoop(context.database, places, report=context.errors.append)] if places else []


def socket_loops(context: Context) -> list[SocketLoop]:
    """Return the loop that takes jobs by ZeroMQ, where the settings want one."""
    settings, report = context.settings, context.errors.append
    processing = settings.processing
    if not processing.zmq_listen:
        return []
    if not processing.zmq_key_file:
        raise SettingsError("processing.zmq_listen is set, and processing.zmq_key_file is not: set both or none")
    host, port = split_address(processing.zmq_listen)
    _, secret = curve.read(Path(processing.zmq_key_file))
    clients = {word[: curve.KEY_LENGTH]: word[curve.KEY_LENGTH + 1 :] for word in processing.zmq_clients}
    messages = Messages(context.database, clients, JobRules.of(settings), report=report)
    return [SocketLoop(Place(host, port, secret), messages, report=report)]


def executor_specs(settings: Settings) -> tuple[dict[str, ExecutorSpec], dict[str, str]]:
    """Return the executors of the settings, and which roles of stages they run."""
    specs = {}
    for name, table in settings.executors.items():
        options = dict(table)
        plugin, slots = str(options.pop("plugin", "parsl")), options.pop("slots", SLOTS)
        if name == LOCAL:
            raise SettingsError(f'executors.{name}: "{name}" is this machine: give yours another name')
        if type(slots) is not int or slots < 1:
            raise SettingsError(f"executors.{name}.slots is how many commands run there at once, and not {slots!r}")
        staging = _staging(settings, name, options)
        checked_options(EXECUTORS, plugin, options)
        specs[name] = ExecutorSpec(plugin, options, settings.processing.work / f"executor-{name}", slots, staging)
    roles = dict(_pairs(settings.processing.roles))
    for role, name in roles.items():
        if name not in specs and name != LOCAL:
            raise SettingsError(f'processing.roles: there is no executor "{name}" for "{role}": add [executors.{name}]')
    return specs, roles


def _staging(settings: Settings, name: str, options: dict[str, Any]) -> Staging | None:
    """Take out of an executor's table how its nodes get data; None where they see our storage."""
    url, root, transfer = (str(options.pop(f"staging{key}", "")) for key in ("", "_root", "_transfer"))
    if url in ("", SHARED):
        if root or transfer:
            raise SettingsError(f"executors.{name}.staging is not set to an address, and the rest of it is")
        return None
    parts = urlsplit(url.rstrip("/"))
    root, transfer = root or unquote(parts.path), transfer or _CARRIES.get(parts.scheme, parts.scheme)
    if not parts.scheme or not root.startswith("/") or root == "/":
        raise SettingsError(
            f"executors.{name}.staging is {SHARED!r} or the address of a directory, such as rsync+ssh://HOST/PATH; "
            "staging_root is its path on the nodes, where that is another"
        )
    staging = Staging(url.rstrip("/"), root.rstrip("/"), transfer, settings.transfer)
    try:
        built = staging.plugin()
    except NotFoundError as error:
        raise SettingsError(f"executors.{name}.staging_transfer: {error.message}") from error
    if not isinstance(built, Fetching):
        raise SettingsError(f'executors.{name}.staging: "{transfer}" can bring nothing back: copy and rsync can')
    return staging


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the variables by which a command that has a session finds the services."""
    ca = {"BEAMKEEPER_CA": str(settings.tls.ca_file)} if settings.tls.ca_file else {}
    return {"BEAMKEEPER_URL": settings.url(Service.STORAGE), "BEAMKEEPER_STATION": settings.station.name, **ca}


def run_rules(settings: Settings) -> RunRules:
    """Return how commands run here."""
    processing = settings.processing
    return RunRules(
        work=processing.work,
        path=_path(processing.path),
        grace_s=processing.grace_s,
        timeout_s=processing.timeout_s,
        memory_bytes=processing.memory_bytes,
        processes=processing.processes,
        file_bytes=processing.file_bytes,
        head_bytes=processing.head_bytes,
        tail_bytes=processing.tail_bytes,
        environment=dict(_pairs(processing.environment)),
        secrets={name: _secret(Path(path)) for name, path in _pairs(processing.secrets)},
        accounts=processing.accounts,
        run_as=processing.run_as,
    )


def _path(words: str) -> str:
    """Return where commands find programs: at last in our own environment, where `dm` and `dm-library` are."""
    own = str(Path(sys.executable).parent)
    return words if own in words.split(":") else f"{words}:{own}"


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield names with their values, of words such as NAME=VALUE."""
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def _secret(path: Path) -> str:
    """Return what a file says that only its owner may read."""
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read the secret {path}: {error.strerror}") from error
