"""Which loops the processing service has, from the settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from beamkeeper.client import Client
from beamkeeper.config import Settings, curve
from beamkeeper.config.values import split_address
from beamkeeper.core.job_sessions import LIFE
from beamkeeper.core.processing import JobRules
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs import loop as jobs
from beamkeeper.engine.jobs.hold import JobsHeld
from beamkeeper.engine.jobs.loop import JobsLoop
from beamkeeper.engine.jobs.messages import Messages
from beamkeeper.engine.jobs.orders import RunRules
from beamkeeper.engine.jobs.sessions import JobSessions
from beamkeeper.engine.jobs.socket import Place, SocketLoop
from beamkeeper.engine.reap import ReapLoop
from beamkeeper.server.deps import Context


def jobs_loops(context: Context, client: Client) -> tuple[JobsLoop, ReapLoop]:
    """Return the loop that runs jobs, and the one that takes up what dead processes had in hand."""
    settings, report, owner = context.settings, context.errors.append, new_uid()
    processing = settings.processing
    processing.work.mkdir(mode=0o711, parents=True, exist_ok=True)
    limits = {name: int(number) for name, number in _pairs(processing.workflow_limits)}
    numbers = jobs.Settings(settings.station.name, processing.slots, limits)
    sessions = JobSessions(client, _addresses(settings), report=report)
    with context.database.read() as tx:
        sessions.end_before(tx.engine_jobs.ended_since(tx.now - LIFE))
    loop = JobsLoop(context.database, owner, run_rules(settings), numbers, report=report, sessions=sessions)
    held = JobsHeld(owner, loop.take_up)
    return loop, ReapLoop(context.database, owner, lease_s=processing.lease_s, report=report, held=held)


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


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the variables by which a command that has a session finds the services."""
    ca = {"BEAMKEEPER_CA": str(settings.tls.ca_file)} if settings.tls.ca_file else {}
    return {"BEAMKEEPER_URL": settings.url(Service.STORAGE), "BEAMKEEPER_STATION": settings.station.name, **ca}


def run_rules(settings: Settings) -> RunRules:
    """Return how commands run here."""
    processing = settings.processing
    return RunRules(
        work=processing.work,
        path=processing.path,
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
