"""The settings of the processing service: how commands of jobs run, and what they may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.config.values import AbsolutePath, Address, Number, OptionalAddress, OptionalFile, ServiceSection, Whole

Limit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}=[1-9][0-9]{0,5}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$")]
Role = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}=[a-z][a-z0-9_-]{0,31}$")]
Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=/[^\x00]+$")]
SocketClient = Annotated[str, StringConstraints(pattern=r"^[!-~]{40}=[^/\x00]{1,64}(/[^/\x00]{1,128})?$")]


class Processing(ServiceSection):
    """The processing service: workflows and jobs."""

    listen: Address = Field(default="127.0.0.1:22239", description="HOST:PORT to listen on; port 0 takes a free one.")
    work: AbsolutePath = Field(
        default=Path("jobs"),
        description="Directory for what jobs write: output, results, working directories; jobs in data_dir unless set.",
    )
    keep_days: Number = Field(
        default=30.0,
        ge=0,
        le=36500,
        description="Days for which what a job wrote below `work` is kept after its end, also results that lie there; "
        "its record stays. 0: for ever.",
    )
    slots: Whole = Field(default=8, ge=1, le=10_000, description="How many commands run at the same time.")
    workflow_limits: tuple[Limit, ...] = Field(
        default=(), description='How many jobs of a workflow run at the same time at most: ["average=2"].'
    )
    roles: tuple[Role, ...] = Field(
        default=(),
        description='Where stages run, by the role that each names as its executor: ["heavy=hpc", "default=local"]. '
        "`default` is of those that name none; a role that is not named here is that of an executor, or runs here.",
    )
    most_queued: Whole = Field(
        default=100_000, ge=1, le=10**7, description="No more jobs are taken when so many wait or run."
    )
    lease_s: Number = Field(
        default=30.0, ge=1, le=3600, description="A process that was not heard of for so many seconds lost its jobs."
    )
    grace_s: Number = Field(
        default=5.0, ge=0, le=3600, description="Seconds between asking a command to end and killing it."
    )
    timeout_s: Number = Field(
        default=0.0,
        ge=0,
        le=366 * 86400,
        description="Seconds that a command may take, if its stage does not say; 0: any.",
    )
    memory_bytes: Whole = Field(
        default=0,
        ge=0,
        le=10**15,
        description="Memory in bytes that a command may use, if its stage does not say; 0: any.",
    )
    processes: Whole = Field(
        default=1000, ge=1, le=10**6, description="Processes that a command may have, unless its stage says."
    )
    file_bytes: Whole = Field(
        default=0, ge=0, le=10**18, description="The largest file that a command may write; 0 for any."
    )
    head_bytes: Whole = Field(
        default=1_000_000,
        ge=1000,
        le=10**10,
        description="Bytes kept of the beginning of what a command writes.",
    )
    tail_bytes: Whole = Field(
        default=8_000_000, ge=1000, le=10**10, description="Bytes that are kept of its end, where it is longer."
    )
    path: str = Field(
        default="/usr/local/bin:/usr/bin:/bin",
        description="Where commands find programs: their variable PATH. Beamkeeper's own are found at last.",
    )
    environment: tuple[Variable, ...] = Field(
        default=(),
        description='More variables for every command: ["OMP_NUM_THREADS=4"]. It gets none of the service\'s.',
    )
    secrets: tuple[Secret, ...] = Field(
        default=(),
        description='Variables whose values are in files that only this account may read: ["TOKEN=/etc/token"]. '
        "They are left out of what commands write.",
    )
    zmq_listen: OptionalAddress = Field(
        default="", description="HOST:PORT of the job socket (ZeroMQ), where instruments submit jobs; off where empty."
    )
    zmq_key_file: OptionalFile = Field(
        default="", description="File with the secret key of the job socket; `dm job make-key FILE` makes it."
    )
    zmq_clients: tuple[SocketClient, ...] = Field(
        default=(),
        description='Who may use the job socket: ["PUBLIC_KEY=USER"], or ["PUBLIC_KEY=USER/NAME"] for an API key.',
    )
    accounts: tuple[str, ...] = Field(default=(), description="Accounts that workflows may name as their userAccount.")
    run_as: tuple[str, ...] = Field(
        default=("/usr/bin/sudo", "-n", "-u", "{account}", "--"),
        description="What puts commands under another account; not needed where the service runs as root.",
    )
