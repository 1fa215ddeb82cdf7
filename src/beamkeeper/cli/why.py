"""`dm why`: what a file was made from, down to the raw frames; `dm rerun`: making it again."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.files import EXPERIMENT, WHICH, file_meant, files_meant
from beamkeeper.cli.jobs import COLUMNS as JOB_COLUMNS
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.names import show_path
from beamkeeper.domain.provenance import DerivedFrom, Provenance, Towards

MAX_SHOWN_DEPTH = 100


@click.command()
@WHICH
@EXPERIMENT
@click.option("--results", is_flag=True, help="The other way: what was made from it.")
@click.option("--from", "sources", metavar="PATH|GLOB|UID", multiple=True, help="Record: it was made from these.")
@click.option("--job", default="", help="With --from: which job or program made it.")
@click.option("--stage", default="", help="With --from: in which stage.")
def why(which: str, experiment: str | None, *, results: bool, sources: tuple[str, ...], job: str, stage: str) -> None:
    """Show what a file was made from, by which job and stage, down to the raw frames, as a tree."""
    client = common.client()
    file = file_meant(client, which, experiment)
    if sources:
        client.provenance.record(file.uid, files_meant(client, sources, experiment), job=job, stage=stage)
    found = client.provenance.why(file.uid, Towards.RESULTS if results else Towards.SOURCES)
    if output.is_json():
        output.data(found)
        return
    for line in tree(found, file.experiment_uid):
        output.say(line)
    if not found.links:
        output.note("nothing was made from it, as far as is known" if results else "it is raw, as far as is known")
    if found.is_stale:
        output.note("it is stale, since something that it was made from has a newer version: `dm rerun` makes it again")
    if found.is_cut:
        output.note("there is more than is shown: ask for one of the files above")


@click.command()
@WHICH
@click.argument("words", metavar="[KEY:VALUE]...", nargs=-1)
@EXPERIMENT
@click.option("--newest", is_flag=True, help="With the newest version of its workflow, not the one that it ran.")
def rerun(which: str, words: tuple[str, ...], experiment: str | None, *, newest: bool) -> None:
    """Run the job again that made a file; KEY:VALUE are arguments that are to be different."""
    client = common.client()
    file = file_meant(client, which, experiment)
    found = client.provenance.why(file.uid)
    made = [link.making.job_uid for link in found.links if link.derived == 0 and link.making is not None]
    if not made:
        raise NotFoundError(f"{show_path(file.relpath)} was made by no job, as far as is known: see `dm why`")
    output.record(client.jobs.rerun(made[-1], common.key_values(words), newest=newest), JOB_COLUMNS)


def tree(found: Provenance, experiment_uid: UUID) -> Iterator[str]:
    """Yield the lines of a tree; what stands in it twice is shown with what is below it once."""
    shown = _Tree(found, experiment_uid)
    yield shown.name(0)
    yield from shown.branches(0, "")


def _maker(link: DerivedFrom) -> tuple[str, ...]:
    """Return what made a file: a job with the workflow that it ran, or what somebody said."""
    if link.making is None:
        return (link.job,)
    return f"{link.making.workflow} {link.making.workflow_version} on {link.making.host}, job", link.job


class _Tree:
    """A tree that is being shown."""

    def __init__(self, found: Provenance, experiment_uid: UUID) -> None:
        self._files = {file.number: file for file in found.files}
        self._experiment_uid = experiment_uid
        self._shown = {0}
        self._below: dict[int, list[tuple[DerivedFrom, int]]] = {}
        for link in found.links:
            near, far = link.derived, link.source
            if found.towards is Towards.RESULTS:
                near, far = far, near
            self._below.setdefault(near, []).append((link, far))

    def branches(self, number: int, before: str) -> Iterator[str]:
        """Yield the lines below a file."""
        links = self._below.get(number, ())
        for place, (link, far) in enumerate(links, start=1):
            is_last = place == len(links)
            is_again = far in self._shown and bool(self._below.get(far))
            by = " ".join(word for word in (*_maker(link), link.stage and f"({link.stage})") if word)
            said = (" (as above)" if is_again else "") + (f", made by {by}" if by else "")
            yield f"{before}{'└─ ' if is_last else '├─ '}{self.name(far)}{said}"
            if far not in self._shown:
                self._shown.add(far)
                deeper = before + ("   " if is_last else "│  ")
                if len(deeper) > 3 * MAX_SHOWN_DEPTH and self._below.get(far):
                    yield f"{deeper}..."
                else:
                    yield from self.branches(far, deeper)

    def name(self, number: int) -> str:
        """Return what a file is called."""
        known = self._files[number].file
        if known is None:
            return "(a file that you may not see)"
        version = f" version {known.version}{'' if known.is_newest else ', not the newest'}"
        is_own = known.experiment_uid == self._experiment_uid
        return f"{show_path(known.relpath)}{version}{'' if is_own else f' of experiment {known.experiment_uid}'}"
