"""Syncs with the facility's databases: the real loop on both databases, and experiments that follow proposals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.core import sessions
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.domain.errors import NotAuthenticatedError, NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.people import Person, ProposalKind, ProposalQuery, Refused, Sync, SyncKind, SyncState
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role, UserChange
from beamkeeper.engine.sync import Facility, SyncLoop
from beamkeeper.plugins import load
from beamkeeper.plugins.people import ACCOUNTS, AUTHENTICATORS, DIRECTORIES, PROPOSALS
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd, ssha

PASSWORD = "correct horse"


class Office:
    """The facility's user office: two files that it writes."""

    def __init__(self, directory: Path) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.papers: dict[str, dict[str, Any]] = {}
        self._directory = directory
        self.write()

    def add(self, username: str, **fields: Any) -> None:
        self.people[username] = {"username": username, "badge": f"b-{username}", **fields}

    def propose(self, number: str, *people: str, kind: str = "gup", **fields: Any) -> None:
        """Write a proposal; the first of its people is the PI."""
        listed = [{"badge": f"b-{name}", "is_pi": name == people[0]} for name in people]
        self.papers[number] = {"kind": kind, "number": number, "people": listed, **fields}

    def write(self) -> None:
        (self._directory / "people.json").write_text(json.dumps(list(self.people.values())))
        (self._directory / "papers.json").write_text(json.dumps(list(self.papers.values())))

    def facility(self, **options: Any) -> Facility:
        usual = Facility(
            source="file",
            directory=load.build(DIRECTORIES, "file", {"path": str(self._directory / "people.json")}),
            proposals=load.build(PROPOSALS, "file", {"path": str(self._directory / "papers.json")}),
            may_leave=2,
            may_leave_percent=0,
        )
        return replace(usual, **options)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@contextmanager
def site_of(office: Office, place: Path, url: str | None = None, **options: Any) -> Iterator[Running]:
    """A site whose storage service syncs with this office."""
    with running(directory=place, url=url) as site:
        loop = SyncLoop(site.database, office.facility(**options), report=lambda _: None)
        loop.start()
        try:
            yield site
        finally:
            loop.stop()
            loop.join()


@pytest.fixture
def site(office: Office, tmp_path: Path) -> Iterator[Running]:
    with site_of(office, tmp_path) as running_site:
        yield running_site


def sync(site: Running, office: Office, kind: SyncKind = SyncKind.USERS, **options: Any) -> Sync:
    office.write()
    return site.client.syncs.run(kind, **options)


def report(site: Running, office: Office, kind: SyncKind = SyncKind.USERS, **options: Any) -> dict[str, Any]:
    """Sync, and return what was counted."""
    done = sync(site, office, kind, **options)
    assert done.state is SyncState.DONE, done.message
    assert done.report is not None
    return done.report.model_dump(exclude_defaults=True, exclude={"refused", "accounts"})


def session(site: Running, username: str) -> Client:
    """Return a client of somebody whose password is not kept here, as if a directory had let them in."""
    with site.database.write() as tx:
        user = tx.users.named(username)
        new = sessions.begin_session(tx, user, expires_at=tx.now + timedelta(hours=1))
    return site.as_(new.token)


def test_people_come_change_leave_and_come_back_and_nobody_is_deleted(
    office: Office, tmp_path: Path, database_url: str
) -> None:
    with site_of(office, tmp_path, database_url) as site:
        for name in ("ada", "bob", "eve"):
            office.add(name)
        assert report(site, office) == {"seen": 3, "added": 3}
        assert report(site, office) == {"seen": 3}
        ada = session(site, "ada")
        office.add("bob", institution="Engines", email="bob@b")
        del office.people["ada"]
        assert report(site, office) == {"seen": 2, "updated": 1, "deactivated": 1}
        bob = site.client.users.get("bob")
        assert (bob.institution, bob.email, bob.badge, bob.source) == ("Engines", "bob@b", "b-bob", "file")
        with pytest.raises(NotAuthenticatedError):
            ada.sessions.whoami()
        assert not site.client.users.get("ada").is_enabled
        office.add("ada")
        assert report(site, office) == {"seen": 3, "reactivated": 1}
        assert site.client.users.get("ada").is_enabled


def test_many_who_leave_at_once_stay_until_somebody_says_so(site: Running, office: Office) -> None:
    for number in range(4):
        office.add(f"user{number}")
    report(site, office)
    office.people.clear()
    assert report(site, office) == {"held_back": 4}
    assert site.client.users.get("user0").is_enabled
    assert report(site, office, may_leave=4) == {"deactivated": 4}


def test_whom_an_administrator_disabled_no_sync_enables(site: Running, office: Office) -> None:
    office.add("ada")
    report(site, office)
    site.client.users.change("ada", UserChange(is_enabled=False))
    office.add("ada", email="new@b")
    assert report(site, office) == {"seen": 1, "updated": 1}
    assert not site.client.users.get("ada").is_enabled


def test_whom_an_administrator_enabled_or_disabled_after_they_left_is_as_was_said(
    site: Running, office: Office
) -> None:
    office.add("ada")
    office.add("bob")
    report(site, office)
    kept, office.people = office.people, {}
    assert report(site, office) == {"deactivated": 2}
    for name in kept:
        site.client.users.change(name, UserChange(is_enabled=True))
    site.client.users.change("bob", UserChange(is_enabled=False))
    assert report(site, office) == {"deactivated": 1}
    office.people = kept
    assert report(site, office) == {"seen": 2, "reactivated": 1}
    assert not site.client.users.get("bob").is_enabled


def test_who_is_there_with_something_that_cannot_be_taken_has_not_left(site: Running, office: Office) -> None:
    office.add("ada")
    report(site, office)
    office.add("ada", full_name="Ada\0Lovelace")
    assert report(site, office) == {"seen": 1, "refused_count": 1}
    assert site.client.users.get("ada").is_enabled
    office.add("ada", full_name="Ada\0Lovelace", is_active=False)
    assert report(site, office) == {"seen": 1, "refused_count": 1, "deactivated": 1}


class Broken:
    """A directory with a fault of its own."""

    def people(self) -> Iterator[Person | Refused]:
        raise KeyError("nobody")


def test_a_directory_that_breaks_ends_its_own_sync_and_no_other(office: Office, tmp_path: Path) -> None:
    office.propose("1", "ada")
    with site_of(office, tmp_path, directory=Broken()) as site:
        failed = sync(site, office)
        assert (failed.state, "KeyError" in failed.message) == (SyncState.FAILED, True)
        assert report(site, office, SyncKind.PROPOSALS) == {"seen": 1, "added": 1}


def test_an_account_that_is_kept_here_is_left_alone_unless_the_badge_is_the_same(site: Running, office: Office) -> None:
    site.client.users.create(NewUser(username="ada", badge="another"))
    site.client.users.create(NewUser(username="bob", badge="b-bob", password=SecretStr(PASSWORD)))
    office.add("ada", full_name="Somebody Else")
    office.add("bob", full_name="Bob B")
    done = sync(site, office)
    assert done.report is not None
    assert [one.what for one in done.report.refused] == ["ada"]
    assert (site.client.users.get("ada").full_name, site.client.users.get("bob").full_name) == ("", "Bob B")
    assert site.client.users.get("bob").source == "file"
    with pytest.raises(NotAuthenticatedError):  # the directory has the password now
        site.as_().sessions.login("bob", PASSWORD)


def test_a_source_that_fails_changes_nothing_and_says_why(site: Running, office: Office, tmp_path: Path) -> None:
    office.add("ada")
    report(site, office)
    (tmp_path / "people.json").write_text("[{")
    failed = site.client.syncs.run(SyncKind.USERS)
    assert failed.state is SyncState.FAILED
    assert "people.json" in failed.message
    assert site.client.users.get("ada").is_enabled
    with pytest.raises(NotPermittedError):
        session(site, "ada").syncs.run(SyncKind.USERS)
    unset = sync(site, office, to_ldap=True)
    assert (unset.state, "people.accounts" in unset.message) == (SyncState.FAILED, True)


def people_of(site: Running, name: str = "coffee") -> dict[str, Role]:
    uid = site.client.experiments.get(name).uid
    return {member.username: member.role for member in site.client.experiments.people(uid)}


def told_of_papers(site: Running) -> None:
    """Find both papers as a manager of a station does, and both syncs as an administrator; nobody else finds any."""

    def numbers(**query: Any) -> list[str]:
        return [one.number for one in site.client.syncs.proposals.page(ProposalQuery(**query)).items]

    assert numbers() == numbers(text="cOFFEE") == ["12345", "271828"]
    assert numbers(text="hot") == numbers(text="2718") == numbers(kind=ProposalKind.ESAF) == ["271828"]
    assert numbers(text="%") == numbers(kind=ProposalKind.GUP, number="271828") == []
    first = site.client.syncs.proposals.page(ProposalQuery(limit=1))
    assert [one.number for one in site.client.syncs.proposals.page(ProposalQuery(after=first.next)).items] == ["271828"]
    assert site.client.syncs.proposals.get(ProposalKind.GUP, "12345").title == "Coffee"
    with pytest.raises(NotPermittedError):
        session(site, "ada").syncs.proposals.page(ProposalQuery())
    newest = site.client.syncs.page(limit=1)
    [older] = site.client.syncs.page(newest.next).items
    assert [one.kind for one in (*newest.items, older)] == [SyncKind.PROPOSALS, SyncKind.USERS]


def test_an_experiment_takes_what_its_proposal_and_its_form_say_and_follows_them(
    office: Office, tmp_path: Path, database_url: str
) -> None:
    with site_of(office, tmp_path, database_url) as site:
        for name in ("ada", "bob", "eve", "joe"):
            office.add(name)
        office.propose("12345", "ada", "bob", title="Coffee", starts_at="2026-03-01", ends_at="2026-03-04")
        office.propose("271828", "ada", "eve", kind="esaf", title="Hot coffee", ends_at="2026-03-05")
        report(site, office)
        assert report(site, office, SyncKind.PROPOSALS) == {"seen": 2, "added": 2}
        told_of_papers(site)
        new = NewExperiment(name="coffee", station=site.settings.station.name, proposal="12345", esaf="271828")
        made = site.client.experiments.create(new)
        assert (made.title, made.pi, str(made.starts_at)[:10], str(made.ends_at)[:10]) == (
            *("Coffee", "ada"),
            *("2026-03-01", "2026-03-06"),
        )
        assert people_of(site) == {"ada": Role.PI, "bob": Role.USER, "eve": Role.USER}
        site.client.experiments.remove_user(made.uid, "eve")
        site.client.experiments.add_user(made.uid, "joe", Role.MANAGER)
        office.propose("12345", "ada")
        assert report(site, office, SyncKind.PROPOSALS) == {"seen": 2, "updated": 1, "members_removed": 1}
        assert people_of(site) == {"ada": Role.PI, "joe": Role.MANAGER}, "what was done by hand stays"
        office.propose("12345", "bob", "ada")
        report(site, office, SyncKind.PROPOSALS)
        assert people_of(site) == {"ada": Role.PI, "bob": Role.PI, "joe": Role.MANAGER}
        site.client.experiments.update(made.uid, ExperimentChange(esaf="", proposal="12345"))
        with pytest.raises(NotFoundError, match="sync proposals"):
            site.client.experiments.create(new.model_copy(update={"name": "tea", "proposal": "99"}))


def test_somebody_who_comes_after_the_proposal_gets_the_role_with_the_account(site: Running, office: Office) -> None:
    office.propose("12345", "ada", "bob")
    report(site, office, SyncKind.PROPOSALS)
    new = NewExperiment(name="coffee", station=site.settings.station.name, proposal="12345")
    assert site.client.experiments.create(new).pi is None
    office.add("bob")
    assert report(site, office) == {"seen": 1, "added": 1, "members_added": 1}
    assert people_of(site) == {"bob": Role.USER}


def test_the_managers_of_an_experiment_add_nobody_by_naming_another_proposal(site: Running, office: Office) -> None:
    for name in ("ada", "bob"):
        office.add(name)
    office.propose("1", "bob")
    report(site, office)
    report(site, office, SyncKind.PROPOSALS)
    uid = site.client.experiments.create(NewExperiment(name="coffee", station=site.settings.station.name)).uid
    site.client.experiments.add_user(uid, "ada", Role.MANAGER)
    ada = session(site, "ada")
    assert ada.experiments.update(uid, ExperimentChange(title="tea")).title == "tea"
    with pytest.raises(NotPermittedError):
        ada.experiments.update(uid, ExperimentChange(proposal="1"))


def test_accounts_with_the_hash_that_the_facility_gives_are_kept_in_a_directory_server(
    office: Office, tmp_path: Path, directory_server: Slapd
) -> None:
    options = directory_server.options()
    office.add("ada", password_hash=ssha(PASSWORD), uid_number=4711)
    with site_of(office, tmp_path, accounts=load.build(ACCOUNTS, "ldap", options)) as site:
        done = sync(site, office, to_ldap=True)
        assert done.report is not None
        assert done.report.accounts is not None
        assert done.report.accounts.added == 1
        plugin = load.build(AUTHENTICATORS, "ldap", options)
        site.contexts[Service.STORAGE].authenticators = Authenticators({"ldap": plugin})
        ada = site.as_()
        assert ada.sessions.login("ada", PASSWORD).session.username == "ada"
        assert directory_server.read(directory_server.dn_of("ada"))["uidNumber"] == ["4711"]
        del office.people["ada"]
        sync(site, office, to_ldap=True)
        for refused in (ada.sessions.whoami, lambda: ada.sessions.login("ada", PASSWORD)):
            with pytest.raises(NotAuthenticatedError):
                refused()
        assert not plugin.is_right("ada", SecretStr(PASSWORD)), "nor anywhere else by that server"


def test_syncs_come_by_themselves_where_that_is_set(office: Office, tmp_path: Path) -> None:
    office.add("ada")
    office.write()
    with site_of(office, tmp_path, every=timedelta(minutes=5)) as site:

        def is_there() -> bool:
            with site.database.read() as tx:
                return tx.users.find("ada") is not None

        assert site.database.wait(is_there, 30)
