"""Stages on clusters by Parsl: blocks of nodes from a scheduler, as many as there is work for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from beamkeeper.domain.errors import SettingsError
from beamkeeper.plugins.api import Options
from beamkeeper.plugins.executors import RETURNED, Task, Told

Provider = Literal["slurm", "grid-engine", "pbs", "torque", "lsf", "condor", "kubernetes", "local"]

_PROVIDERS: Mapping[Provider, str] = {
    "slurm": "SlurmProvider",
    "grid-engine": "GridEngineProvider",
    "pbs": "PBSProProvider",
    "torque": "TorqueProvider",
    "lsf": "LSFProvider",
    "condor": "CondorProvider",
    "kubernetes": "KubernetesProvider",
    "local": "LocalProvider",
}
_WITHOUT_WALLTIME = ("kubernetes", "local")


class ParslOptions(Options):
    """A table of executors."""

    provider: Provider = Field(description="Which scheduler gives the nodes.")
    options: Mapping[str, JsonValue] = Field(
        default_factory=dict,
        description="What else Parsl's provider takes, by its names: partition, account, queue, scheduler_options.",
    )
    workers_per_node: int | None = Field(
        default=None, ge=1, le=1024, description="Commands at once on a node; as many as it has cores unless set."
    )
    cores_per_worker: float = Field(default=1.0, gt=0, le=1024, description="Cores that each command may count on.")
    nodes_per_block: int = Field(default=1, ge=1, le=10_000, description="Nodes that are asked for together.")
    min_blocks: int = Field(default=0, ge=0, le=10_000, description="So many blocks are kept though nothing runs.")
    max_blocks: int = Field(default=1, ge=1, le=10_000, description="No more blocks than this at once.")
    walltime: str = Field(
        default="01:00:00", pattern=r"^\d{1,4}:[0-5]\d:[0-5]\d$", description="How long a block is asked for."
    )
    drain_s: int | None = Field(
        default=None, ge=1, description="A block older than this begins nothing more; set it below the walltime."
    )
    idle_s: float = Field(default=120.0, ge=1, description="A block with nothing to do is given back after this.")
    worker_init: str = Field(
        default="", description="Shell commands before a worker starts; unless set, our own programs are found."
    )
    address: str | None = Field(default=None, description="Our address as nodes reach it; tried out unless set.")
    heartbeat_s: int = Field(default=30, ge=1, le=3600, description="A node that is silent four times so long is lost.")
    port_from: int = Field(default=54000, ge=1024, le=65000, description="The first of the ports nodes connect to.")
    port_to: int = Field(default=56000, ge=1025, le=65535, description="The port after the last of them.")

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        if self.nodes_per_block > 1 and self.provider != "slurm":
            # One program starts a block's workers; that of Slurm is told to do so on each of its nodes.
            raise ValueError("nodes_per_block is for slurm: leave it 1, and ask for more max_blocks")
        if self.provider == "kubernetes" and "image" not in self.options:
            raise ValueError(
                'kubernetes needs options = { image = "..." }, a container with Beamkeeper and its extra parsl'
            )
        return self


class ParslExecutor:
    """Tasks on Parsl's high-throughput executor."""

    options: ClassVar[type[Options]] = ParslOptions
    requires: ClassVar[Mapping[str, str]] = {"parsl": "beamkeeper[parsl]"}
    summary: ClassVar[str] = "Runs stages on Slurm, Grid Engine, PBS, LSF, HTCondor and Kubernetes, by Parsl."

    def __init__(self, options: ParslOptions, directory: Path) -> None:
        if find_spec("parsl") is None:
            raise SettingsError("an executor needs Parsl: pip install 'beamkeeper[parsl]'")
        self._executor: Any = import_module("parsl.executors").HighThroughputExecutor(
            label="beamkeeper",
            provider=provider_of(options),
            address=options.address,
            max_workers_per_node=options.workers_per_node,
            cores_per_worker=options.cores_per_worker,
            drain_period=options.drain_s,
            heartbeat_period=options.heartbeat_s,
            heartbeat_threshold=options.heartbeat_s * 4,
            worker_port_range=(options.port_from, options.port_to),
            poll_period=100,
            encrypted=True,
        )
        config = import_module("parsl.config").Config(
            executors=[self._executor],
            run_dir=str(directory),
            strategy="simple",  # the other one cancels blocks that have just begun, where tasks are fewer than workers
            strategy_period=1.0,
            max_idletime=options.idle_s,
            retries=0,  # whether anything may run again is not Parsl's to say
            usage_tracking=0,
            initialize_logging=False,
        )
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._kernel: Any = import_module("parsl.dataflow.dflow").DataFlowKernel(config)

    def start(self, task: Task, told: Told) -> None:
        """Give Parsl's executor a task: its kernel keeps a graph of tasks, of which ours need nothing."""
        how = {"f": f"{__name__}.{call.__name__}", "a": (task.entry,)}
        future: Future[None] = self._executor.submit_payload({"task_executor": how}, json.dumps(task.order).encode())
        future.add_done_callback(lambda done: told(_why(done)))

    def fault(self) -> str:
        """Return why Parsl begins nothing more: too many blocks failed, or its interchange ended."""
        if self._executor.bad_state_is_set:
            return str(self._executor.executor_exception)
        process = self._executor.interchange_proc
        return "Parsl's interchange has ended" if process is not None and process.poll() is not None else ""

    def close(self) -> None:
        """Cancel the blocks, and end Parsl."""
        self._kernel.cleanup()


def call(order: bytes, entry: str) -> None:
    """Call a function of ours by its name: this is what runs in Parsl's workers."""
    module, _, name = entry.partition(":")
    getattr(import_module(module), name)(json.loads(order))


def _why(done: Future[None]) -> str:
    error = done.exception()
    return RETURNED if error is None else f"{type(error).__name__}: {error}"[:500]


def provider_of(options: ParslOptions) -> Any:
    """Return Parsl's provider of an executor's table."""
    launchers = import_module("parsl.launchers")
    launcher = launchers.SrunLauncher() if options.nodes_per_block > 1 else launchers.SimpleLauncher()
    own = f"export PATH='{Path(sys.executable).parent}':$PATH"
    told: dict[str, Any] = {
        "nodes_per_block": options.nodes_per_block,
        "init_blocks": options.min_blocks,
        "min_blocks": options.min_blocks,
        "max_blocks": options.max_blocks,
        "walltime": options.walltime,
        "worker_init": options.worker_init or own,
        "launcher": launcher,
        **options.options,
    }
    if options.provider in _WITHOUT_WALLTIME:
        del told["walltime"]
    if options.provider == "kubernetes":
        del told["launcher"]
    try:
        return getattr(import_module("parsl.providers"), _PROVIDERS[options.provider])(**told)
    except (TypeError, import_module("parsl.errors").OptionalModuleMissing) as error:
        raise SettingsError(f"Parsl's provider for {options.provider} cannot be made: {error}") from error
