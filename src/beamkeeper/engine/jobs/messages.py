"""Messages of the job socket: each is one job to be submitted, and gets one answer, whatever it holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from beamkeeper.core import audit_log, processing, sessions
from beamkeeper.core.processing import JobRules
from beamkeeper.db import Database, ProcessingTransaction
from beamkeeper.domain.audit_log import NewAuditEntry
from beamkeeper.domain.errors import (
    DmError,
    InternalError,
    InvalidError,
    NotAuthenticatedError,
    TooLargeError,
)
from beamkeeper.domain.json_text import parse_json
from beamkeeper.domain.processing import Job, NewJob
from beamkeeper.domain.users import Caller, Scope
from beamkeeper.engine.worker import Report

logger = logging.getLogger(__name__)

LARGEST = 1024 * 1024
"""Bytes of a message: a job with some thousand files."""

ACTION = "ZMQ /jobs"
"""What the audit log calls a submission by message."""

LONGEST_WHY = 256


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a message is from: the key that was proven, and the address."""

    key: str
    address: str = ""


class Messages:
    """Answers messages. `clients` maps public keys to USER, or to USER/NAME for an API key of that name."""

    def __init__(
        self,
        database: Database[ProcessingTransaction],
        clients: Mapping[str, str],
        rules: JobRules,
        *,
        report: Report,
    ) -> None:
        self._database = database
        self._clients = clients
        self._rules = rules
        self._report = report

    def is_known(self, key: str) -> bool:
        """Whether anybody with this key may speak at all."""
        return key in self._clients

    def answer(self, sender: Sender, parts: Sequence[bytes]) -> bytes:
        """Return the answer to a message; nothing that it holds raises."""
        try:
            job = self._taken(sender, parts)
        except DmError as error:
            return _answer({"ok": False, "code": error.code, "message": error.message})
        except Exception as error:
            self._report(f"job socket: {type(error).__name__}")
            logger.exception("a message of the job socket failed")
            own = InternalError("the service has met an error of its own: tell its operator, the log has it")
            return _answer({"ok": False, "code": own.code, "message": own.message})
        return _answer({"ok": True, "job": str(job.uid), "status": str(job.status)})

    def _taken(self, sender: Sender, parts: Sequence[bytes]) -> Job:
        caller = self._caller(sender)
        new = _job(parts)
        try:
            with self._writing(caller, sender) as tx:
                return processing.submit(tx, caller, [new], rules=self._rules)[0]
        except InvalidError:
            raise  # what made no sense leaves no row in the audit log, as over HTTP
        except DmError as error:
            self._note_refused(caller, sender, error)
            raise

    def _caller(self, sender: Sender) -> Caller:
        username, _, key = self._clients.get(sender.key, "").partition("/")
        if not username:
            raise NotAuthenticatedError("this key is not among processing.zmq_clients: ask the station's managers")
        with self._database.read() as tx:
            return sessions.machine(tx, username, key or None, Scope.PROCESS)

    @contextmanager
    def _writing(self, caller: Caller, sender: Sender) -> Iterator[ProcessingTransaction]:
        """Open a transaction whose changes the audit log tells of."""
        held: list[Any] = []

        def last(tx: ProcessingTransaction) -> None:
            audit_log.note(tx, _entry(caller, sender, changes=held[0].changes(), more=held[0].more))

        with self._database.write(last=last) as tx:
            held.append(tx.audit_log.record())
            yield tx

    def _note_refused(self, caller: Caller, sender: Sender, error: DmError) -> None:
        with self._database.write() as tx:
            audit_log.note(tx, _entry(caller, sender, result=error.code, message=error.message[:LONGEST_WHY]))


def _entry(caller: Caller, sender: Sender, **values: Any) -> NewAuditEntry:
    return NewAuditEntry(
        username=caller.username,
        user_uid=caller.user_uid,
        session_uid=caller.session_uid,
        address=sender.address,
        action=ACTION,
        **values,
    )


def _job(parts: Sequence[bytes]) -> NewJob:
    if len(parts) != 1:
        raise InvalidError(f"a message has one part, and this has {len(parts)}")
    content = parts[0]
    if len(content) > LARGEST:
        raise TooLargeError(f"a message may have {LARGEST} bytes at most, and this has {len(content)}: submit by HTTP")
    try:
        return NewJob.model_validate(parse_json(content))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        where = ".".join(str(part) for part in faults[0]["loc"]) or "the message"
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InvalidError(f"{where}: {faults[0]['msg'].removeprefix('Value error, ')}{more}") from error


def _answer(values: Mapping[str, object]) -> bytes:
    return json.dumps(values).encode("ascii")
