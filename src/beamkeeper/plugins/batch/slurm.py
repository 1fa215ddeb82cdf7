"""Slurm: sbatch, squeue, sacct and scancel, so asked that no locale and no width of a column changes an answer."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence

from beamkeeper.plugins.batch import options
from beamkeeper.plugins.batch.jobs import ATTEMPT, BatchJob, BatchState, Handle, ask, name_of, silent

_WITHOUT_VALUE = (
    "hold requeue no-requeue parsable wait exclusive overcommit oversubscribe contiguous verbose quiet test-only "
    "ignore-pbs spread-job use-min-nodes reboot get-user-env no-kill help usage version nice propagate bell no-bell"
)
_FLAGS = frozenset(f"--{name}" for name in _WITHOUT_VALUE.split())
_VALUED = frozenset(f"-{letter}" for letter in "aAbBcCdDeFGiJLmMnNopqStwx")

_WORDS: Mapping[str, BatchState] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"), BatchState.WAITING),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"), BatchState.RUNNING),
    **dict.fromkeys(("RESIZING", "RESV_DEL_HOLD"), BatchState.RUNNING),
    "COMPLETED": BatchState.DONE,
    **dict.fromkeys(("CANCELLED", "REVOKED"), BatchState.CANCELLED),
}
"""Everything else is an end that is none of these: FAILED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY and what may come."""

_NO_ACCOUNTS = "accounting storage is disabled"


class Slurm:
    """The Slurm that this user's commands reach."""

    name = "slurm"
    kept_back = (ATTEMPT,)

    def marked(self, argv: Sequence[str], key: str) -> list[str]:
        """Name the job, and let no two of that name run at once, unless the user has said for what it is to wait."""
        given = options.read(argv, valued=_VALUED, flags=_FLAGS, are_letters=True)
        options.refuse(given, ("--wait", "-W"), "to wait for a job, give what is printed to `dm batch wait`")
        options.refuse(given, ("--test-only",), "nothing would be submitted")
        options.refuse(given, ("-M", "--clusters"), "jobs are looked for in one cluster: set SLURM_CONF for another")
        name = name_of(options.own_name(given, "-J", "--job-name"), key)
        more = ["--parsable", f"--job-name={name}"]
        if not given.has("--comment"):
            more.append(f"--comment=beamkeeper {key}")
        if _is_alone(given):
            more.append("--dependency=singleton")
        return [*argv[: given.at], *more, *argv[given.at :]]

    def id_in(self, output: str) -> str | None:
        """Return what `--parsable` prints: the id, and the cluster behind it."""
        last = output.strip().splitlines()[-1:] or [""]
        found = last[0].partition(";")[0]
        return found if found.isdigit() else None

    def queue(self) -> list[BatchJob]:
        """Ask the controller, which knows jobs for some minutes after their end as well (MinJobAge)."""
        columns = "ArrayJobID:|,Name:|,State:|,exit_code:|"
        argv = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--states=all", "-O", columns]
        ran = ask(argv)
        if ran.returncode:
            raise silent(argv, ran.stderr)
        rows = [line.split("|") for line in ran.stdout.splitlines() if line.count("|") >= 4]
        return [_job(id_, name, word, _status(int(code))) for id_, name, word, code, *_ in rows if code.isdigit()]

    def accounts(self, jobs: Sequence[Handle]) -> list[BatchJob]:
        """Ask the accounts about jobs by their ids; where a site keeps none, they know nothing."""
        return self._accounts(f"--jobs={','.join(job.id for job in jobs)}")

    def find(self, name: str) -> list[BatchJob]:
        """Ask the accounts by name, and the controller."""
        found = [row for row in self.queue() if row.name == name]
        known = {row.id for row in found}
        return found + [row for row in self._accounts(f"--name={name}") if row.id not in known and row.name == name]

    def cancel(self, job: Handle, name: str) -> None:
        """End a job by its id and its name."""
        argv = ["scancel", f"--jobname={name}", job.id]
        ran = ask(argv)
        if ran.returncode and "Invalid job id" not in ran.stderr and "already complet" not in ran.stderr:
            raise silent(argv, ran.stderr)

    def _accounts(self, which: str) -> list[BatchJob]:
        told = "--format=JobIDRaw,JobID,JobName%200,State,ExitCode"
        # With --duplicates all jobs that ever had a number are told of: which is ours, its name says.
        argv = ["sacct", "--allocations", "--noheader", "--parsable2", "--duplicates", "--starttime=now-30days"]
        argv += [f"--user={getpass.getuser()}", told, which]
        ran = ask(argv)
        if _NO_ACCOUNTS in ran.stderr:
            return []
        if ran.returncode:
            raise silent(argv, ran.stderr)
        rows = [line.split("|") for line in ran.stdout.splitlines() if line.count("|") == 4]
        # A job that was put back into the queue has a row for each time: the last one counts.
        last = {(raw, name): (shown, word, code) for raw, shown, name, word, code in rows}
        return [
            _job(shown.partition("_")[0], name, word, _accounted(code))
            for (_, name), (shown, word, code) in last.items()
        ]


def _is_alone(given: options.Given) -> bool:
    """Whether it can be asked that no two jobs of the name run at once, without undoing what the user asks for."""
    text = given.script_text()
    says = given.has("-d", "--dependency", "-a", "--array") or "dependency" in text or "array" in text
    return not says


def _job(id_: str, name: str, word: str, exit_status: int) -> BatchJob:
    first = word.split(maxsplit=1)[0] if word else ""  # "CANCELLED by 1000"
    state = _WORDS.get(first, BatchState.FAILED)
    return BatchJob(id_, name, state, exit_status if state.has_ended else 0, first)


def _status(code: int) -> int:
    """Return the exit status of what `wait` gives."""
    return code >> 8 if code & 0x7F == 0 else 128 + (code & 0x7F)


def _accounted(code: str) -> int:
    """Return the exit status of what sacct says, status and signal."""
    status, _, number = code.partition(":")
    return 128 + int(number) if number.isdigit() and int(number) else int(status) if status.isdigit() else 0
