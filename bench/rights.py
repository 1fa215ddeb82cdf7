"""What rights cost: `make bench-rights`.

One line a row, with tabs between: bench, name, figure, what is asked, ok or short. On SQLite, and on a PostgreSQL that
this starts. BENCH='--experiments 1000 --turns 100 --only lists' is shorter.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from report import Row, machine, status, table, write_part

from beamkeeper.client import Client
from beamkeeper.core.passwords import Passwords
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.domain.errors import NotAuthenticatedError
from beamkeeper.domain.experiments import ExperimentQuery, NewExperiment
from beamkeeper.domain.people import Person, SyncKind, SyncState
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Grant, NewUser, Role, UserChange
from beamkeeper.engine.sync import Facility, SyncLoop
from beamkeeper.plugins import load
from beamkeeper.plugins.people import DIRECTORIES
from beamkeeper.testing.servers import fresh_database, postgres
from beamkeeper.testing.services import Running, running

OF_ONE = 50
TURNS = 300
HASHES = 20
REFUSALS = 200
LOUDEST = 0.6
"""Somebody who guesses by the time of an answer what it was is right so often at most (AUC; 0.5 is chance)."""
TEXT = f"""\
## Rights

What `make bench-rights` measured here. The list is the first {OF_ONE} experiments of {{experiments:,}}, at a site with
{{users:,}} people: asked over HTTP by an administrator, whom no right limits, and by a member of {OF_ONE} of them, by
turns; the medians of {{turns}} are compared. The sync takes {{directory:,}} people from a file into an empty site, and
then once more, where nothing has changed. A request with a session does not come near argon2: it is far quicker than
one check of a password. Refused logins are timed by turns, of a name that nobody has, of a wrong password, and of an
account that is disabled: how often two of them are told apart by their time is between 0.5, which is chance, and 1.
"""


@dataclass(frozen=True)
class Size:
    """How much there is to be measured on."""

    experiments: int = 10_000
    users: int = 2_000
    directory: int = 50_000
    turns: int = TURNS


def fill(site: Running, size: Size) -> str:
    """Make the people and the experiments; return the token of somebody who is a member of a few."""
    token = new_token()
    with site.database.write() as tx:
        tx.people.take([Person(username=f"u{number}") for number in range(size.users)], source="bench")
        station, (area, *_) = tx.experiments.stations()[0], tx.storage.list()
        member = tx.users.named("u0").uid
        others = [tx.users.named(f"u{number}").uid for number in range(1, 100)]
        for number in range(size.experiments):
            new = NewExperiment(name=f"e{number:05}", station=station.name)
            made = tx.experiments.add(
                new, station=station, cycle="2026-1", area_uid=area.uid, directory=f"{station.name}/{number}"
            )
            is_its = number % (size.experiments // OF_ONE) == 0
            uid = member if is_its else others[number % len(others)]
            tx.users.grant(Grant(role=Role.USER, user_uid=uid, experiment_uid=made.uid))
        tx.users.add_session(token_sha256(token), user_uid=member, expires_at=tx.now + timedelta(hours=1))
    return token


def by_turns(*asks: Callable[[], object], turns: int) -> list[list[float]]:
    """Return the seconds of each, asked one after the other so that all meet the same machine."""
    took: list[list[float]] = [[] for _ in asks]
    for _ in range(turns):
        for ask, kept in zip(asks, took, strict=True):
            began = time.perf_counter()
            ask()
            kept.append(time.perf_counter() - began)
    return took


def list_rows(name: str, directory: Path, url: str | None, size: Size) -> Iterator[Row]:
    """Compare a list without rights with one with them."""
    with running(directory=directory, url=url) as site:
        member = site.as_(fill(site, size))

        def listed(client: Client) -> int:
            page = client.experiments.page(ExperimentQuery(limit=OF_ONE))
            return len(page.items)

        if listed(member) != OF_ONE or listed(site.client) != OF_ONE:
            raise RuntimeError("the lists are not of the same length")
        asks = (lambda: listed(site.client), lambda: listed(member), member.sessions.whoami)
        free, limited, who = map(statistics.median, by_turns(*asks, turns=size.turns))
    yield Row(f"{name}: list of {OF_ONE} by a member / by an administrator", limited / free, "x", 1.1)
    yield Row(f"{name}: list of {OF_ONE} by a member", limited * 1000, "ms")
    yield Row(f"{name}: a request with a session", who * 1000, "ms", 50)


def sync_rows(directory: Path, url: str, size: Size) -> Iterator[Row]:
    """Take a whole facility over, and once more."""
    directory.mkdir()
    people = [{"username": f"p{n}", "badge": str(n), "full_name": f"Person {n}"} for n in range(size.directory)]
    (directory / "people.json").write_text(json.dumps(people))
    plugin = load.build(DIRECTORIES, "file", {"path": str(directory / "people.json")})
    with running(directory=directory, url=url) as site:
        loop = SyncLoop(site.database, Facility(source="bench", directory=plugin), report=lambda _: None)
        loop.start()
        try:
            for what, most in (("people added", 60.0), ("people who are there", 60.0)):
                began = time.perf_counter()
                done = site.client.syncs.run(SyncKind.USERS)
                if done.state is not SyncState.DONE:
                    raise RuntimeError(done.message)
                yield Row(f"PostgreSQL: sync of {size.directory:,} {what}", time.perf_counter() - began, "s", most)
        finally:
            loop.stop()
            loop.join(60)


def hash_rows() -> Iterator[Row]:
    """Measure one check of a password, with an account and without."""
    passwords, word = Passwords(), SecretStr("correct horse battery")
    kept = passwords.hash(word)
    for name, against in (("of somebody", kept), ("of nobody", None)):
        took = []
        for _ in range(HASHES):
            began = time.perf_counter()
            passwords.is_right(word, against)
            took.append(time.perf_counter() - began)
        yield Row(f"argon2: check of a password {name}", statistics.median(took) * 1000, "ms", 250, 100)


def refusal_rows(directory: Path) -> Iterator[Row]:
    """Measure whether the time of a refused login tells why, with passwords at their full cost."""
    clock = [datetime.now(UTC)]
    with running(directory=directory, clock=lambda: clock[0]) as site:
        site.contexts[Service.STORAGE].passwords = Passwords()
        for name in ("known", "closed"):
            site.client.users.create(NewUser(username=name, password=SecretStr("correct horse battery")))
        site.client.users.change("closed", UserChange(is_enabled=False))
        names = ("nobody", "known", "closed")
        asks = [partial(_refused, site.as_(tries=1), name, clock) for name in names]
        took = by_turns(*asks, turns=REFUSALS)
    for (one, first), (other, second) in itertools.combinations(zip(names, took, strict=True), 2):
        yield Row(f"refused logins told apart by their time: {one}, {other}", _auc(first, second), "", LOUDEST, 0.5)


def _refused(client: Client, name: str, clock: list[datetime]) -> None:
    clock[0] += timedelta(hours=1)  # so that no failure counts any more
    try:
        client.sessions.login(name, "wrong horse battery")
    except NotAuthenticatedError:
        return
    raise RuntimeError(f"{name} was let in")


def _auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how often the slower of two is of the kind that is slower more often."""
    slower = sum((a > b) + (a == b) / 2 for a in one for b in other) / (len(one) * len(other))
    return max(slower, 1 - slower)


def measured(size: Size, only: str) -> Iterator[Row]:
    """Measure all of it, or one part."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamkeeper-bench-")))
        if only in ("", "passwords"):
            yield from hash_rows()
            yield from refusal_rows(place / "refusals")
        if only in ("", "lists"):
            yield from list_rows("SQLite", place / "sqlite", None, size)
        if only == "passwords":
            return
        server = stack.enter_context(postgres())
        if only in ("", "lists"):
            yield from list_rows("PostgreSQL", place / "postgresql", fresh_database(server), size)
        if only in ("", "sync"):
            yield from sync_rows(place / "sync", fresh_database(server), size)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="Put the figures into a page of the documentation.")
    for field in fields(Size):
        parser.add_argument(
            f"--{field.name}", type=int, default=field.default, help="How many; %(default)s unless given."
        )
    parser.add_argument("--only", choices=("passwords", "lists", "sync"), default="", help="Measure one part.")
    options = parser.parse_args(arguments)
    size = Size(**{field.name: getattr(options, field.name) for field in fields(Size)})
    facts, rows = machine("bench-rights"), []
    for row in measured(size, options.only):
        print(row.line(), flush=True)
        rows.append(row)
    if options.write:
        write_part(options.write, "rights", [TEXT.format(**asdict(size)), *table(rows, facts)])
    return status(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
