"""`dm daq`: running watches of directories."""

from __future__ import annotations

import os
import time
from itertools import islice
from typing import Any

import click

from beamkeeper.cli import acquiring, commanding, common, following, output, picking, replicas
from beamkeeper.cli.acquiring import ALL, EXPERIMENT, ONE, WORDS, Duration
from beamkeeper.cli.commanding import VIA_SITE
from beamkeeper.client.acquisition import Daqs
from beamkeeper.domain.acquisition import ACTIVE, Acquisition, Finished, JournalState, NewDaq
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.names import show_path

POLICY_S = 2.0
"""So long after the start we wait for the engine to say when a file counts as finished."""


@click.command
@click.argument("directory")
@WORDS
@acquiring.kept_options
@acquiring.taken_options
@click.option("--ignore-existing", is_flag=True, help="Leave out the files that are there already.")
@click.option("--wait", is_flag=True, help="Wait for the directory to appear.")
@click.option("--take-over", is_flag=True, help="End the DAQ that holds the directory, and go on from there.")
@click.option("--finished", type=click.Choice([str(choice) for choice in Finished]), default=str(Finished.EVIDENCE))
@click.option("--quiet", "quiet_s", type=Duration(), help="A file that rested so long may count as finished.")
@click.option("--sentinel", metavar="NAME", help="Files by which the writer says that others are finished: *.done")
@click.option("--poll", is_flag=True, help="Scan often, in place of waiting for word from the kernel.")
@click.option("--follow", is_flag=True, help="Stay until it has ended.")
@VIA_SITE
def start(
    directory: str, words: tuple[str, ...], ignore_existing: bool, follow: bool, via_site: bool, **options: Any
) -> int:
    """Watch DIRECTORY of the station, and keep what appears in it.

    Trailing KEY:VALUE words are metadata of every file. With --follow the exit status is 10 where it fails.
    """
    client = common.client()
    experiment = common.experiment(client, options.pop("experiment"))
    fields = {**options, **acquiring.directory_fields(directory), "metadata": common.key_values(words)}
    fields |= {"experiment_uid": experiment.uid, "with_existing": not ignore_existing}
    new = acquiring.asked(NewDaq, fields)
    if via_site:
        return commanding.start(client, experiment, new)
    started = _with_policy(client.daqs, client.daqs.start(new))
    if not (output.is_json() and follow):
        _tell(started)
    if not follow:
        return 0
    return following.report(client.daqs, following.follow(client.daqs, started.uid))


def _tell(started: Acquisition) -> None:
    if output.is_json():
        output.data(started)
        return
    output.say(f"DAQ {started.uid} watches {acquiring.directory(started)} for experiment {started.experiment}.")
    if started.policy:
        output.say(f"{started.policy[0].upper()}{started.policy[1:]}.")
    output.say(f"Each copy is {started.verify.sentence}.")
    if started.message:
        output.say(started.message)
    skipped = [tally for tally in started.tallies if tally.state is JournalState.SKIPPED]
    if ignored := sum(tally.files for tally in skipped if tally.reason_code == "existing"):
        output.say(f"{acquiring.files(ignored)} that were there already: ignored.")


def _with_policy(daqs: Daqs, started: Acquisition) -> Acquisition:
    deadline = time.monotonic() + POLICY_S
    while not started.policy and started.state in ACTIVE and time.monotonic() < deadline:
        time.sleep(0.05)
        started = daqs.get(started.uid)
    return started


@click.command
@ONE
@EXPERIMENT
@click.option("--now", is_flag=True, help="Do not deliver the rest; a later DAQ of the directory does.")
@click.option("--no-wait", is_flag=True, help="Only ask for the end.")
@VIA_SITE
def stop(uid: str | None, experiment: str | None, *, now: bool, no_wait: bool, via_site: bool) -> int:
    """Make a last scan, deliver the rest, and end; then say what is not delivered.

    Without UID the DAQ that runs. The exit status is 10 where something is left.
    """
    client = common.client()
    if via_site:
        return commanding.stop(client, experiment, uid, now=now)
    meant = acquiring.meant(client, client.daqs, uid, experiment=experiment)
    stopped = client.daqs.stop(meant.uid, now=now)
    if no_wait:
        output.record(stopped, acquiring.FIELDS)
        return 0
    return following.report(client.daqs, following.follow(client.daqs, meant.uid), is_stopped=now)


@click.command("list")
@EXPERIMENT
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@ALL
def list_(experiment: str | None, active: bool, is_all: bool) -> None:
    """List DAQs, newest first; those that have ended without their counts."""
    client = common.client()
    uid = common.experiment(client, experiment).uid if experiment else None
    found = islice(client.daqs.list(experiment_uid=uid, active=active), None if is_all else acquiring.LISTED_FIRST)
    output.rows(found, acquiring.COLUMNS, empty="no DAQs: `dm daq start DIRECTORY` starts one.")


@click.command
@ONE
@EXPERIMENT
@ALL
def show(uid: str | None, experiment: str | None, is_all: bool) -> None:
    """Show a DAQ, and what is not delivered and why.

    UID may be its last few characters; without it the one that runs, or the newest.
    """
    client = common.client()
    meant = acquiring.meant(client, client.daqs, uid, experiment=experiment, even_ended=True)
    acquiring.show(client.daqs, meant, is_all=is_all)
    replicas.show_waiting(client, meant.experiment_uid, meant.also)


@click.command
@ONE
@EXPERIMENT
def watch(uid: str | None, experiment: str | None) -> int:
    """Follow a DAQ until it ends; leaving with Ctrl-C does not end it."""
    client = common.client()
    meant = acquiring.meant(client, client.daqs, uid, experiment=experiment, even_ended=True)
    return following.report(client.daqs, following.follow(client.daqs, meant.uid))


@click.command
@picking.WHICH
@picking.PATTERN
@picking.FOLLOW
def retry(uid: str, pattern: str | None, follow: bool) -> int:
    """Try quarantined files of a DAQ again: all, or those that PATTERN matches.

    Also when it has ended: it runs again for them, and for nothing else. UID may be its last few characters. PATTERN is
    held against the path below the directory, and against the name.
    """
    client = common.client()
    return picking.retry(client.daqs, client, uid, pattern, is_followed=follow)


@click.command
@picking.WHICH
@picking.PATTERNS
@picking.NONE
def prioritise(uid: str, patterns: tuple[str, ...], is_none: bool) -> None:
    """Let files of a DAQ that PATTERN matches go before all others: this scan now.

    Those that wait, and those that are still to come; it takes the place of what was asked before.
    """
    client = common.client()
    picking.prioritise(client.daqs, client, uid, patterns, is_none=is_none)


@click.command
@click.argument("uid", metavar="DAQ")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def announce(uid: str, paths: tuple[str, ...]) -> None:
    """Say that files are finished, as their writer: they are taken without a quiet period.

    DAQ may be the last few characters of its uid. A PATH counts from the DAQ's directory unless it is absolute; of a
    directory, everything that is in it by now is meant.
    """
    client = common.client()
    meant = acquiring.meant(client, client.daqs, uid)
    taken = client.daqs.announce(meant.uid, [_below(meant, path) for path in paths])
    output.say(f"{taken} announced to DAQ {meant.uid}.")


def _below(daq: Acquisition, path: str) -> bytes:
    raw, root = os.fsencode(path), b"/" + daq.relpath
    if os.path.isabs(raw):
        raw = os.path.relpath(os.path.realpath(os.path.dirname(raw)) + b"/" + os.path.basename(raw), root)
    raw = os.path.normpath(raw)
    if raw == b"." or raw.startswith((b"../", b"/")) or raw == b"..":
        raise InvalidError(
            f'"{show_path(os.fsencode(path))}" is not in {acquiring.directory(daq)}, which the DAQ watches'
        )
    return raw
