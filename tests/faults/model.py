"""F65: a model of people, sessions, experiments, files and jobs, played against a station that dies now and then.

Hypothesis chooses the steps. What the services answer has to be what the model says, whenever it is asked; at the end
of each play nothing may be on its way, the checker looks at every file, and each job has run once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import JsonValue, SecretStr

from beamkeeper.client import Client
from beamkeeper.client.http import Credentials
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, NotFoundError, UnavailableError
from beamkeeper.domain.processing import JobStatus, NewJob
from beamkeeper.domain.users import NewUser, Role, UserChange
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.station import until
from faults.lab import Lab, Trial

PASSWORD = "correct horse"
WORKFLOW = "f65"
MOST_PEOPLE, MOST_SESSIONS, MOST_JOBS, MOST_FILES = 4, 8, 6, 12
STEPS_BETWEEN_CRASHES = 15
NUMBERS = itertools.count()
PLACES = st.integers(0, 1)
WHICH = st.integers(0, 99)


@dataclass
class Login:
    """A session as the model has it."""

    username: str
    token: str
    is_over: bool = False


@dataclass
class Model:
    """What should be so."""

    people: dict[str, bool] = field(default_factory=dict)
    """Who is there, and whether they may log in."""
    members: list[set[str]] = field(default_factory=lambda: [set(), set()])
    logins: list[Login] = field(default_factory=list)
    files: list[set[bytes]] = field(default_factory=lambda: [set(), set()])
    jobs: dict[UUID, bool] = field(default_factory=dict)
    """Which were submitted, and whether somebody stopped them."""

    def lets_in(self, login: Login) -> bool:
        """Whether a session holds."""
        return not login.is_over and self.people[login.username]

    def sees(self, login: Login) -> set[int]:
        """Return which experiments somebody sees."""
        return {place for place, members in enumerate(self.members) if login.username in members}


class Beamline(RuleBasedStateMachine):
    """Two experiments of one station, and what people do there."""

    def __init__(self, lab: Lab, marks: Path) -> None:
        super().__init__()
        self.lab, self.marks = lab, marks
        self.model = Model()
        self.trials: list[Trial] = []
        self.seen = Credentials()
        self.turn = 0
        self.lived = 0

    @initialize()
    def begin(self) -> None:
        """Make the experiments, each with a DAQ that watches a directory of its own, and with somebody logged in."""
        for name in ("F65-one", "F65-two"):
            trial = self.lab.trial(name)
            self.trials.append(trial)
            trial.begin()
        stages: JsonValue = {"1": {"command": f'echo ran >> "{self.marks}/$mark"', "workingDir": "/"}}
        with suppress(DmError):
            self.admin.workflows.add(checked_definition({"name": WORKFLOW, "stages": stages}))
        for place in range(len(self.trials)):
            self.comes()
            self.joins(self.somebody(place), place)
            self.logs_in(self.somebody(place), PASSWORD)
            self.writes(place, b"0.dat", b"first")
            self.submits(place)

    @property
    def admin(self) -> Client:
        """An administrator's client, as the station runs."""
        return self.lab.up()

    def client_of(self, login: Login) -> Client:
        """Return the client of a session."""
        return Client(self.admin.url, token=login.token, logins=self.lab.station.logins, station="TEST")

    # What people do.

    @precondition(lambda self: len(self.model.people) < MOST_PEOPLE)
    @rule()
    def somebody_comes(self) -> None:
        self.comes()

    def comes(self) -> None:
        """Make an account."""
        name = f"f65-{next(NUMBERS)}"
        self.admin.users.create(NewUser(username=name, password=SecretStr(PASSWORD)))
        self.model.people[name] = True

    @precondition(lambda self: self.model.people)
    @rule(which=WHICH, may_enter=st.booleans())
    def an_account_is_closed_or_opened(self, which: int, may_enter: bool) -> None:
        name = self.somebody(which)
        self.admin.users.change(name, UserChange(is_enabled=may_enter))
        self.model.people[name] = may_enter
        for login in self.model.logins if not may_enter else ():
            login.is_over |= login.username == name

    @precondition(lambda self: self.model.people)
    @rule(which=WHICH, place=PLACES)
    def somebody_joins(self, which: int, place: int) -> None:
        self.joins(self.somebody(which), place)

    def joins(self, name: str, place: int) -> None:
        """Make somebody a member."""
        self.admin.experiments.add_user(self.trials[place].experiment.uid, name, Role.USER)
        self.model.members[place].add(name)

    @precondition(lambda self: any(self.model.members))
    @rule(which=WHICH, place=PLACES)
    def somebody_leaves(self, which: int, place: int) -> None:
        members = sorted(self.model.members[place])
        for name in members[which % len(members) :][:1] if members else ():
            self.admin.experiments.remove_user(self.trials[place].experiment.uid, name)
            self.model.members[place].discard(name)

    @precondition(lambda self: self.model.people and len(self.model.logins) < MOST_SESSIONS)
    @rule(which=WHICH, password=st.sampled_from([PASSWORD, PASSWORD, "wrong horse"]))
    def somebody_logs_in(self, which: int, password: str) -> None:
        self.logs_in(self.somebody(which), password)

    def logs_in(self, name: str, password: str) -> None:
        """Try to log in; that is answered as the model says."""
        with Client(self.admin.url, logins=self.lab.station.logins, station="TEST") as client:
            try:
                token = client.sessions.login(name, password).token
                self.seen.saw(client.credentials.mirror)
            except NotAuthenticatedError:
                assert password != PASSWORD or not self.model.people[name], f"{name} is not let in"
                return
        assert password == PASSWORD
        assert self.model.people[name], f"{name} is let in"
        self.model.logins.append(Login(name, token))

    @precondition(lambda self: self.model.logins)
    @rule(which=WHICH)
    def somebody_logs_out(self, which: int) -> None:
        login = self.model.logins[which % len(self.model.logins)]
        if self.model.lets_in(login):
            with self.client_of(login) as client:
                client.sessions.logout()
                self.seen.saw(client.credentials.mirror)
            login.is_over = True

    # What detectors and commands do.

    @precondition(lambda self: sum(map(len, self.model.files)) < MOST_FILES)
    @rule(place=PLACES, name=st.integers(0, 3), content=st.binary(min_size=1, max_size=40))
    def a_file_is_written(self, place: int, name: int, content: bytes) -> None:
        self.writes(place, b"%d.dat" % name, content)

    def writes(self, place: int, path: bytes, content: bytes) -> None:
        """Let a detector write a file, or another version of one."""
        self.trials[place].writer.renamed(path, content)
        self.model.files[place].add(path)

    @precondition(lambda self: len(self.model.jobs) < MOST_JOBS)
    @rule(place=PLACES)
    def a_job_is_submitted(self, place: int) -> None:
        self.submits(place)

    def submits(self, place: int) -> None:
        """Submit a job that leaves a mark."""
        mark = f"mark-{next(NUMBERS)}"
        new = NewJob(workflow=WORKFLOW, experiment_uid=self.trials[place].experiment.uid, arguments={"mark": mark})
        self.model.jobs[self.admin.jobs.submit(new).uid] = False

    @precondition(lambda self: not all(self.model.jobs.values()))
    @rule(which=WHICH)
    def a_job_is_stopped(self, which: int) -> None:
        going = [uid for uid, is_stopped in self.model.jobs.items() if not is_stopped]
        uid = going[which % len(going)]
        self.admin.jobs.stop(uid)
        self.model.jobs[uid] = True

    @precondition(lambda self: self.lived >= STEPS_BETWEEN_CRASHES)
    @rule()
    def the_station_is_killed_and_started(self) -> None:
        self.lab.down()
        self.lab.up()
        self.lived = 0

    # What has to be so.

    @invariant()
    def one_session_is_as_the_model_has_it(self) -> None:
        """Whom it lets in, and what they see, at the site and at the station; the next step asks for another one."""
        self.lived += 1
        if mirror := self.admin.credentials.mirror:  # none since it was started, where nothing has changed
            self.seen.saw(mirror)
        if self.model.logins:
            self.turn += 1
            self.check_login(self.model.logins[self.turn % len(self.model.logins)])

    def check_login(self, login: Login) -> None:
        """Compare a session with the model."""
        with self.client_of(login) as client:
            client.credentials.saw(self.seen.mirror)
            if not self.model.lets_in(login):
                for ask in (client.sessions.whoami, lambda: client.files.summary(self.trials[0].experiment.uid)):
                    assert isinstance(refusal(ask), NotAuthenticatedError), f"{login.username} is let in"
                return
            seen = self.model.sees(login)
            uids = [trial.experiment.uid for trial in self.trials]
            assert {one.uid for one in client.experiments.list()} == {uids[place] for place in seen}
            for place, uid in enumerate(uids):
                error = refusal(lambda uid=uid: client.files.summary(uid))  # type: ignore[misc]
                assert (error is None) == (place in seen), f"{login.username} at the station: {error}"
                assert error is None or isinstance(error, NotFoundError), repr(error)

    def teardown(self) -> None:
        """Let everything come to rest, and look at all of it."""
        try:
            if len(self.trials) == 2:
                self.check_end()
        finally:
            for trial in self.trials:
                trial.close()

    def check_end(self) -> None:
        for login in self.model.logins:
            self.check_login(login)
        for trial, names in zip(self.trials, self.model.files, strict=True):
            trial.await_available(len(names))
            assert trial.settle() == []
        for uid, is_stopped in self.model.jobs.items():
            self.check_job(uid, is_stopped=is_stopped)

    def check_job(self, uid: UUID, *, is_stopped: bool) -> None:
        until(lambda: self.admin.jobs.get(uid, 10).has_ended, f"the end of job {uid}")
        job = self.admin.jobs.get(uid)
        record = self.admin.jobs.record(uid)
        assert job.status is JobStatus.DONE or is_stopped, f"{job.status}: {job.message}"
        mark = self.marks / str(record.arguments["mark"])
        ran = mark.read_text().count("ran") if mark.exists() else 0
        assert ran == 1 if job.status is JobStatus.DONE else ran <= 1, f"it ran {ran} times"

    def somebody(self, which: int) -> str:
        """Return one of the people."""
        return list(self.model.people)[which % len(self.model.people)]


def refusal(ask: Callable[[], object]) -> DmError | None:
    """Return how something is refused; None where it is answered."""
    try:
        ask()
    except UnavailableError:
        raise
    except DmError as error:
        return error
    return None
