"""`dm stats` and `dm file facets`: the catalogue in numbers."""

from __future__ import annotations

from itertools import islice

import click

from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import Uid
from beamkeeper.domain.stats import FacetQuery, Stat, StatsBy, StatsQuery

EXPERIMENT = click.option(
    "--experiment", metavar="NAME", help="Only this experiment; else that of `dm experiment use`, if there is one."
)
EVERYWHERE = click.option("--everywhere", is_flag=True, help="In every experiment that you may read.")


@click.command()
@click.option(
    "--by", type=click.Choice(common.values(StatsBy)), default=StatsBy.EXPERIMENT.value, show_default=True, help="How."
)
@EXPERIMENT
@EVERYWHERE
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many lines.")
def stats(by: str, experiment: str | None, *, everywhere: bool, limit: int) -> None:
    """Count files and bytes by experiment, directory, type or day (UTC) of their last change at the source."""
    client = common.client()
    query = StatsQuery(by=StatsBy(by), experiment_uid=_meant(client, experiment, everywhere), limit=min(limit, 1000))
    page = client.files.stat_page(query)
    items = list(islice(client.files.stats(query.by, query.experiment_uid), limit)) if page.next else page.items
    if output.is_json():
        output.data({**page.model_dump(exclude={"items", "next"}), "items": list(items)})
        return
    output.rows(items, {by: lambda stat: stat.name or "(none)", "files": "files", "size": _size}, empty="no files yet")
    output.say(f"{page.files} files, {output.size(page.bytes)} in all")
    _tell(page.index_behind)


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--query", metavar="QUERY", help="Only files that meet this, as in `dm file find`.")
@EXPERIMENT
@EVERYWHERE
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="So many texts of a key.")
def facets(keys: tuple[str, ...], query: str | None, experiment: str | None, *, everywhere: bool, limit: int) -> None:
    """Show which values metadata KEYs have, such as sample.name, and how many files have each."""
    client = common.client()
    files = common.build(FileQuery, query=query, experiment_uid=_meant(client, experiment, everywhere))
    wanted = common.build(FacetQuery, keys=keys, files=files, limit=limit)
    found = client.files.facets(wanted.keys, wanted.files, limit=wanted.limit)
    if output.is_json():
        output.data(found)
        return
    for facet in found.facets:
        lines: list[tuple[str, object]] = [(output.safe(value.value), value.files) for value in facet.values]
        lines += [("(other texts)", facet.other)] if facet.other else []
        for numbers in facet.numbers:
            unit = "" if numbers.dimension == "plain" else f" {numbers.dimension}"
            mean = "" if numbers.mean is None else f", mean {numbers.mean:.6g} ± {numbers.deviation or 0:.3g}"
            lines.append((f"{numbers.low:.6g} to {numbers.high:.6g}{unit}", f"{numbers.files}{mean}"))
        output.pairs(lines or [("", "no file has it, or it is not indexed")], title=facet.key)
    if found.is_sample:
        output.say(f"only the first {found.counted} files that meet the query were counted")
    _tell(found.index_behind)


def _meant(client: Client, experiment: str | None, everywhere: bool) -> Uid | None:
    is_one = not everywhere and (experiment or client.profile.experiment)
    return common.experiment(client, experiment).uid if is_one else None


def _size(stat: Stat) -> str:
    return output.size(stat.bytes)


def _tell(behind: int) -> None:
    if behind:
        output.say(f"about {behind} files that have changed are not in these numbers yet")
