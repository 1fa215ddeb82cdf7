"""What child processes wrote, and how commands run at a station."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path
from uuid import UUID

from beamkeeper.config import Settings
from beamkeeper.core import job_accounts
from beamkeeper.core import processing as verbs
from beamkeeper.core.processing import JobRules
from beamkeeper.db import ProcessingTransaction
from beamkeeper.domain import captured
from beamkeeper.domain.processing import (
    ACTIVE_ATTEMPTS,
    ChildProcess,
    JobRecord,
    JobStatus,
    LogPiece,
    LogQuery,
    ProcessingInfo,
)
from beamkeeper.domain.users import Caller

SHOWN = 64_000
"""Bytes of a stream that a record shows of each child process."""

SHOWN_OF_ALL = 2_000_000
"""Bytes of all streams that one record shows; where there are more child processes, less is shown of each."""


def with_output(record: JobRecord, work: Path) -> JobRecord:
    """Return a record with the beginning and end of what each child process wrote."""
    count = max(1, 2 * len(record.child_processes))
    limit = min(SHOWN, max(400, SHOWN_OF_ALL // count))
    children = tuple(
        _shown(child, work / str(record.uid) / str(child.number), limit) for child in record.child_processes
    )
    return record.model_copy(update={"child_processes": children})


def _shown(child: ChildProcess, directory: Path, limit: int) -> ChildProcess:
    texts = {
        stream: captured.ends(str(directory / stream), limit).decode("utf-8", "replace") for stream in captured.STREAMS
    }
    return child.model_copy(update=texts)


def piece(
    tx: ProcessingTransaction, caller: Caller, uid: UUID, number: int, *, query: LogQuery, rules: JobRules
) -> LogPiece:
    """Return a piece of what a child process wrote; negative offsets count from the end."""
    verbs.show(tx, caller, uid, rules=rules)
    child = tx.jobs.attempt(uid, number)
    path = str(rules.work / str(uid) / str(number) / query.stream)
    offset = query.offset if query.offset >= 0 else max(0, captured.size_of(path) + query.offset)
    data, begin, size = captured.read(path, offset, query.limit)
    following = begin + len(data)
    is_over = child.state not in ACTIVE_ATTEMPTS
    text = data.decode("utf-8", "replace")
    return LogPiece(text=text, begin=begin, next=following, size=size, is_end=is_over and following >= size)


def info(tx: ProcessingTransaction, settings: Settings) -> ProcessingInfo:
    """Return how commands run here."""
    counts = tx.jobs.counts()
    processing = settings.processing
    asked = {account: job_accounts.refusal(processing.run_as, account) for account in processing.accounts}
    return ProcessingInfo(
        host=socket.gethostname(),
        account=pwd.getpwuid(os.getuid()).pw_name,
        accounts=tuple(account for account, why in asked.items() if not why),
        refused={account: why for account, why in asked.items() if why},
        slots=processing.slots,
        queued=counts.get(JobStatus.PENDING, 0),
        running=counts.get(JobStatus.RUNNING, 0),
        most_queued=processing.most_queued,
    )
