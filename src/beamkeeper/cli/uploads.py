"""`dm upload`: single passes over directories; `dm put`: files sent from this machine."""

from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import UUID

import click
from uuid6 import uuid7

from beamkeeper.cli import acquiring, commanding, common, following, output, picking, replicas, sending
from beamkeeper.cli.acquiring import ALL, EXPERIMENT, ONE, WORDS
from beamkeeper.cli.commanding import VIA_SITE
from beamkeeper.domain.acquisition import NewPut, NewUpload
from beamkeeper.domain.files import Verify


@click.command
@click.argument("directory")
@WORDS
@acquiring.kept_options
@acquiring.taken_options
@click.option("--follow", is_flag=True, help="Stay until it has ended.")
@VIA_SITE
def start(directory: str, words: tuple[str, ...], follow: bool, via_site: bool, **options: Any) -> int:
    """Keep what is in DIRECTORY of the station now.

    Trailing KEY:VALUE words are metadata of every file. With --follow the exit status is 10 where it fails.
    """
    client = common.client()
    experiment = common.experiment(client, options.pop("experiment"))
    fields = {**options, **acquiring.directory_fields(directory), "metadata": common.key_values(words)}
    fields["experiment_uid"] = experiment.uid
    new = acquiring.asked(NewUpload, fields)
    if via_site:
        return commanding.start(client, experiment, new)
    started = client.uploads.start(new)
    if follow:
        return following.report(client.uploads, following.follow(client.uploads, started.uid))
    if output.is_json():
        output.data(started)
    else:
        output.say(f"upload {started.uid} of {acquiring.directory(started)} for experiment {started.experiment}.")
        output.say(f"Each copy is {started.verify.sentence}.")
        output.say("`dm upload watch` follows it.")
    return 0


@click.command
@ONE
@EXPERIMENT
@click.option("--now", is_flag=True, help="Do not deliver the rest; a later upload of the directory does.")
@click.option("--no-wait", is_flag=True, help="Only ask for the end.")
@VIA_SITE
def stop(uid: str | None, experiment: str | None, *, now: bool, no_wait: bool, via_site: bool) -> int:
    """End an upload; what was found is delivered first. Without UID the one that runs."""
    client = common.client()
    if via_site:
        return commanding.stop(client, experiment, uid, now=now)
    meant = acquiring.meant(client, client.uploads, uid, experiment=experiment)
    stopped = client.uploads.stop(meant.uid, now=now)
    if no_wait:
        output.record(stopped, acquiring.FIELDS)
        return 0
    is_given_up = now or (meant.is_put and meant.started_at is None)
    return following.report(client.uploads, following.follow(client.uploads, meant.uid), is_stopped=is_given_up)


@click.command("list")
@EXPERIMENT
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@ALL
def list_(experiment: str | None, active: bool, is_all: bool) -> None:
    """List uploads, newest first; those that have ended without their counts."""
    client = common.client()
    uid = common.experiment(client, experiment).uid if experiment else None
    found = islice(client.uploads.list(experiment_uid=uid, active=active), None if is_all else acquiring.LISTED_FIRST)
    output.rows(found, acquiring.COLUMNS, empty="no uploads: `dm upload start DIRECTORY` starts one.")


@click.command
@ONE
@EXPERIMENT
@ALL
def show(uid: str | None, experiment: str | None, is_all: bool) -> None:
    """Show an upload, and what is not delivered and why.

    UID may be its last few characters; without it the one that runs, or the newest.
    """
    client = common.client()
    meant = acquiring.meant(client, client.uploads, uid, experiment=experiment, even_ended=True)
    acquiring.show(client.uploads, meant, is_all=is_all)
    replicas.show_waiting(client, meant.experiment_uid, meant.also)


@click.command
@ONE
@EXPERIMENT
def watch(uid: str | None, experiment: str | None) -> int:
    """Follow an upload until it ends; leaving with Ctrl-C does not end it."""
    client = common.client()
    meant = acquiring.meant(client, client.uploads, uid, experiment=experiment, even_ended=True)
    return following.report(client.uploads, following.follow(client.uploads, meant.uid))


@click.command
@picking.WHICH
@picking.PATTERN
@picking.FOLLOW
def retry(uid: str, pattern: str | None, follow: bool) -> int:
    """Try quarantined files of an upload again: all, or those that PATTERN matches.

    Also when it has ended: it runs again for them, and for nothing else. UID may be its last few characters. PATTERN is
    held against the path below the directory, and against the name.
    """
    client = common.client()
    return picking.retry(client.uploads, client, uid, pattern, is_followed=follow)


@click.command
@picking.WHICH
@picking.PATTERNS
@picking.NONE
def prioritise(uid: str, patterns: tuple[str, ...], is_none: bool) -> None:
    """Let files of an upload that PATTERN matches go before all others: this scan now.

    Those that wait, and those that are still to come; it takes the place of what was asked before.
    """
    client = common.client()
    picking.prioritise(client.uploads, client, uid, patterns, is_none=is_none)


@click.command
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@acquiring.kept_options
@click.option("--recursive", "-r", is_flag=True, help="Send directories with all that is in them.")
@click.option("--meta", "words", multiple=True, metavar="KEY:VALUE", help="Metadata of every file.")
@click.option("--resume", type=click.UUID, metavar="UID", help="Go on with a put that broke off.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the files are available.")
def put(
    files: tuple[str, ...],
    recursive: bool,
    words: tuple[str, ...],
    resume: UUID | None,
    no_wait: bool,
    **options: Any,
) -> int:
    """Send FILEs from this machine; wait until they are stored, verified and catalogued, and say so."""
    client = common.client()
    experiment = common.experiment(client, options.pop("experiment"))
    chosen = sending.choose(files, recursive=recursive)
    uid = resume or UUID(bytes=uuid7().bytes)
    fields = {**options, "uid": uid, "experiment_uid": experiment.uid, "metadata": common.key_values(words)}
    upload = sending.send(client, acquiring.asked(NewPut, fields), chosen.files)
    left_out = sending.tell_left_out(chosen)
    if no_wait:
        output.record(upload, acquiring.FIELDS)
        return left_out
    ended = following.follow(client.uploads, upload.uid)
    status = following.report(client.uploads, ended)
    if status == 0:
        where = "/".join(part for part in (ended.tree, ended.destination) if part)
        what = "stored, verified and catalogued"
        if ended.verify is not Verify.READ_BACK:
            what = f"catalogued, and {ended.verify.sentence},"
        output.say(f"All of it is {what} in experiment {ended.experiment}, below {where}/.")
    return status or left_out
