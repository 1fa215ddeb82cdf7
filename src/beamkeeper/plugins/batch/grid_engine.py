"""Grid Engine, Son of and Univa's: qsub, qstat, qacct and qdel."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping, Sequence

from beamkeeper.plugins.batch import options
from beamkeeper.plugins.batch.jobs import ACTS_BY, ATTEMPT, BatchJob, BatchState, Handle, ask, name_of, silent

_WITH_VALUE = (
    "a ac A ar b binding c ckpt C dc dl display e hold_jid hold_jid_ad i j jc js jsv l m M masterq N o ot p pe "
    "P q R r S sc shell sync t tc u v w wd @"
)
_VALUED = frozenset(f"-{name}" for name in _WITH_VALUE.split())
_ROW = re.compile(r"<job_list\b.*?</job_list>", re.DOTALL)
_CELL = re.compile(r"<(JB_job_number|JB_name|state)>([^<]*)</\1>")
_FACT = re.compile(r"^(jobname|jobnumber|failed|exit_status)\s+(.*?)\s*$", re.MULTILINE)
_NOTHING = re.compile(r"not found|no jobs running since startup|accounting: No such file")
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}

KILLED, CANCELLED = 137, 100
"""The exit status of what qdel ended; the `failed` of what was ended before it began, and by its administrator."""


class GridEngine:
    """The Grid Engine that this user's commands reach."""

    name = "sge"
    kept_back = (ATTEMPT, ACTS_BY)  # with -V the whole environment is shown to everybody by qstat

    def marked(self, argv: Sequence[str], key: str) -> list[str]:
        """Name the job, and have its id printed alone."""
        given = options.read(argv, valued=_VALUED, flags=frozenset(), are_letters=False)
        options.refuse(given, ("-sync",), "to wait for a job, give what is printed to `dm batch wait`")
        options.refuse(given, ("-verify",), "nothing would be submitted")
        name = name_of(options.own_name(given, "-N"), key)
        return [*argv[: given.at], "-terse", "-N", name, *argv[given.at :]]

    def id_in(self, output: str) -> str | None:
        """Return what `-terse` prints: the id, and the range of its tasks behind it."""
        last = output.strip().splitlines()[-1:] or [""]
        found = last[0].partition(".")[0]
        return found if found.isdigit() else None

    def queue(self) -> list[BatchJob]:
        """Ask the master about all jobs of this user; those that have ended it forgets at once."""
        argv = ["qstat", "-u", getpass.getuser(), "-xml"]
        ran = ask(argv)
        if ran.returncode or "<job_info" not in ran.stdout:
            raise silent(argv, ran.stderr or ran.stdout)
        return [_waiting(dict(_CELL.findall(row))) for row in _ROW.findall(ran.stdout)]

    def accounts(self, jobs: Sequence[Handle]) -> list[BatchJob]:
        """Read the accounts; it takes one question for each job, and is asked about those that are out of hand."""
        return [row for job in jobs for row in self._accounts(job.id)]

    def find(self, name: str) -> list[BatchJob]:
        """Ask the master, and read the accounts, by name."""
        return [row for row in self.queue() if row.name == name] + [r for r in self._accounts(name) if r.name == name]

    def cancel(self, job: Handle, name: str) -> None:
        """End a job by its name, which no other has; a double of one that is kept by its number, which it has now."""
        named = {row.id for row in self.queue() if row.name == name}
        if job.id not in named:
            return  # it has ended, and its number or its name may be another's
        argv = ["qdel", name if named == {job.id} else job.id]
        ran = ask(argv)
        if ran.returncode and "does not exist" not in ran.stdout:
            raise silent(argv, ran.stderr or ran.stdout)

    def _accounts(self, which: str) -> list[BatchJob]:
        argv = ["qacct", "-o", getpass.getuser(), "-j", which]
        ran = ask(argv)
        if ran.returncode:
            if _NOTHING.search(ran.stdout + ran.stderr):
                return []
            raise silent(argv, ran.stderr or ran.stdout)
        return list(_ended(ran.stdout))


def _waiting(cells: Mapping[str, str]) -> BatchJob:
    word, name = cells.get("state", ""), cells.get("JB_name", "")
    for entity, plain in _ENTITIES.items():
        name = name.replace(entity, plain)
    # E: it cannot begin, and waits for its user or administrator; h and q: held, queued.
    state = BatchState.WAITING if set(word) & set("qwhE") else BatchState.RUNNING
    return BatchJob(cells.get("JB_job_number", ""), name, state, word=word)


def _ended(text: str) -> Iterator[BatchJob]:
    for record in re.split(r"(?m)^=+$", text):
        facts = dict(_FACT.findall(record))
        if "jobnumber" not in facts:
            continue
        status, failed = _number(facts.get("exit_status", "")), _number(facts.get("failed", ""))
        if failed == CANCELLED and status == KILLED:
            state = BatchState.CANCELLED
        else:
            state = BatchState.FAILED if failed or status else BatchState.DONE
        word = f"failed {facts.get('failed', '')}".strip() if failed else ""
        yield BatchJob(facts["jobnumber"], facts.get("jobname", ""), state, status, word)


def _number(text: str) -> int:
    """Return the number with which a text begins: `100 : assumedly after job`."""
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
