"""`dm`: the table of commands, options for all of them, and how an error ends the process.

Only click is imported to show help and to complete words; a command's module is imported when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import click

from beamkeeper.cli.lazy import Lazy, LazyGroup
from beamkeeper.cli.tables import BATCH, JOBS, REPLICAS, RUNS, SUBGROUPS

GROUPS: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = {
    "user": (
        "Accounts of the site.",
        {
            "create": ("users:create", "Make an account."),
            "list": ("users:list_", "List accounts."),
            "show": ("users:show", "Show an account and its roles."),
            "disable": ("users:disable", "Disable an account; its sessions end at once."),
            "enable": ("users:enable", "Enable an account again."),
            "password": ("users:password", "Set a password."),
            "grant": ("users:grant", "Give a role of the site or of a station."),
            "revoke": ("users:revoke", "Take such a role away."),
            "link": ("identities:link", "Let somebody at an identity provider be an account."),
            "unlink": ("identities:unlink", "Undo such a link."),
            "identities": ("identities:list_", "Show who an account is at identity providers."),
        },
    ),
    "key": (
        "API keys for instruments and scripts.",
        {
            "create": ("keys:create", "Make a key; it is shown once."),
            "list": ("keys:list_", "List keys."),
            "revoke": ("keys:revoke", "Take a key back."),
        },
    ),
    "sync": (
        "Taking over the facility's people and proposals.",
        {
            "users": ("syncs:users", "Take over people; nobody is deleted."),
            "proposals": ("syncs:proposals", "Take over proposals and forms."),
        },
    ),
    "auth": (
        "Who checks passwords.",
        {"check": ("auth:check", "Try the connection to each directory, in words.")},
    ),
    "station": (
        "Stations of the site.",
        {
            "create": ("stations:create", "Make a station."),
            "list": ("stations:list_", "List stations."),
            "show": ("stations:show", "Show a station."),
            "update": ("stations:update", "Change a station: its layout, cycle, time zone."),
            "join": ("stations:join", "Get the service key of a station, with its one-time token."),
            "commands": ("commanding:commands", "List what it was asked to do by way of the site."),
            "token": ("stations:token", "Make a one-time token for `dm station join`."),
        },
    ),
    "storage": (
        "Storage areas.",
        {
            "list": ("storage:list_", "List storage areas."),
            "show": ("storage:show", "Show a storage area, and what waits for it."),
            "add": ("storage:add", "Add a storage area."),
            "check": ("storage:check", "Write, read back and remove a probe file."),
        },
    ),
    "experiment": (
        "Experiments and their people.",
        {
            "create": ("experiments:create", "Make an experiment and its directories."),
            "list": ("experiments:list_", "List experiments."),
            "show": ("experiments:show", "Show an experiment, its people and files in numbers."),
            "update": ("experiments:update", "Change an experiment."),
            "delete": ("experiments:delete", "Hide an experiment; its files stay."),
            "use": ("experiments:use", "Make an experiment the one that commands mean."),
            "unsent": ("unsent:list_", "List experiments of a cut-off station that the site does not have yet."),
            "resend": ("unsent:resend", "Send such an experiment to the site now, with changes."),
            "drop": ("unsent:drop", "Give such an experiment up; its files stay at the source."),
            "add-user": ("experiments:add_user", "Give somebody a role in an experiment."),
            "remove-user": ("experiments:remove_user", "Take somebody's role in an experiment away."),
            "deliveries": ("downloads:deliveries", "Show who got what, and how far it came."),
        },
    ),
    "type": (
        "Kinds of experiments.",
        {
            "create": ("types:create", "Make an experiment type."),
            "change": ("types:change", "Change what is indexed of an experiment type."),
            "list": ("types:list_", "List experiment types."),
        },
    ),
    "daq": (
        "Running watches of directories.",
        {
            "start": ("daqs:start", "Watch a directory, and keep what appears in it."),
            "stop": ("daqs:stop", "Make a last scan, deliver the rest, and end."),
            "list": ("daqs:list_", "List DAQs."),
            "show": ("daqs:show", "Show a DAQ, and what is not delivered and why."),
            "watch": ("daqs:watch", "Follow a DAQ until it ends."),
            "retry": ("daqs:retry", "Try quarantined files again."),
            "prioritise": ("daqs:prioritise", "Let some files go before all others."),
            "announce": ("daqs:announce", "Say that files are finished, as their writer."),
        },
    ),
    "upload": (
        "Single passes over directories.",
        {
            "start": ("uploads:start", "Keep what is in a directory now."),
            "stop": ("uploads:stop", "End an upload."),
            "list": ("uploads:list_", "List uploads."),
            "show": ("uploads:show", "Show an upload, and what is not delivered and why."),
            "watch": ("uploads:watch", "Follow an upload until it ends."),
            "retry": ("uploads:retry", "Try quarantined files again."),
            "prioritise": ("uploads:prioritise", "Let some files go before all others."),
        },
    ),
    "file": (
        "Catalogued files.",
        {
            "list": ("files:list_", "List files."),
            "show": ("files:show", "Show a file: versions, replicas and the ledger."),
            "tree": ("arrays:tree", "Show what is inside an HDF5 or TIFF file."),
            "find": ("files:find", "Find files by path, size, time and metadata."),
            "facets": ("stats:facets", "Show which values metadata keys have."),
            "delete": ("files:delete", "Hide files; a manager can bring them back."),
            "restore": ("files:restore", "Bring hidden files back."),
        },
    ),
    "catalog": (
        "The catalogue as a whole.",
        {
            "export": ("catalogues:export", "Write all that is known of files to JSON Lines, CSV or Parquet."),
            "import": ("catalogues:import_", "Bring in what an export wrote, or metadata from a CSV."),
            "check": ("catalogues:check", "Say what does not fit together."),
            "reindex": ("catalogues:reindex", "Make the search index anew."),
        },
    ),
    "dataset": (
        "Named sets of files.",
        {
            "create": ("datasets:create", "Make a dataset, as a list or as a saved query."),
            "list": ("datasets:list_", "List datasets."),
            "show": ("datasets:show", "Show a dataset and its files."),
            "add": ("datasets:add", "Add files to a dataset."),
            "remove": ("datasets:remove", "Take files out of a dataset."),
            "freeze": ("datasets:freeze", "Fix a dataset's files for ever."),
        },
    ),
    "run": ("Scans and measurements.", RUNS),
    "workflow": (
        "What may be run at the station.",
        {
            "add": ("workflows:add", "Add a workflow."),
            "update": ("workflows:update", "Change a workflow."),
            "upsert": ("workflows:upsert", "Add a workflow, or change it."),
            "list": ("workflows:list_", "List workflows."),
            "show": ("workflows:show", "Show a workflow: its arguments and stages."),
            "history": ("workflows:history", "Show every version of a workflow."),
            "delete": ("workflows:delete", "Delete a workflow; its history stays."),
            "lint": ("workflows:lint_", "Say what is wrong or dangerous in a definition."),
            "test": ("workflow_test:test", "Try a workflow out on the last files, before it goes live."),
            "library": ("workflow_library:library", "List the workflows that come with Beamkeeper."),
            "install": ("workflow_library:install", "Add a workflow of the library to the station."),
        },
    ),
    "ledger": (
        "What arrived, and what is stored and verified.",
        {"show": ("ledger:show", "Show by directory what arrived, is stored, and is verified.")},
    ),
    "replica": ("Copies of files in several storage areas.", REPLICAS),
    "wipe": (
        "Wiping of directories at the source.",
        {
            "plan": ("wipes:plan", "Say whether a directory is safe to wipe."),
            "run": ("wipes:run", "Wipe a directory: delete just what is proven."),
            "show": ("wipes:show", "Show a plan, and what became of it."),
            "list": ("wipes:list_", "List plans and runs."),
        },
    ),
    "hold": (
        "What may not be wiped.",
        {
            "add": ("wipes:hold", "Hold a path."),
            "remove": ("wipes:release", "Remove a hold."),
            "list": ("wipes:holds", "List what is held."),
        },
    ),
    "link": (
        "Links to files, for people without an account.",
        {
            "create": ("downloads:link", "Make a link to files of an experiment."),
            "list": ("downloads:links", "List the links into an experiment."),
            "revoke": ("downloads:revoke", "Revoke a link."),
            "allow": ("downloads:allow", "Allow links into a proprietary experiment."),
        },
    ),
    "job": ("Executions of workflows.", JOBS),
    "batch": ("Jobs of a batch system that commands of workflows submit.", BATCH),
    "plugin": ("Plugins of the station.", {"list": ("plugins:list_", "List the plugins that are installed.")}),
    "config": (
        "Settings.",
        {
            "show": ("config:show", "Show every setting, and where it comes from."),
            "check": ("config:check", "Say whether the settings can be used."),
        },
    ),
    "access": ("Who may do what, and why.", {"explain": ("access:explain", "Say what somebody may do, and why.")}),
    "audit-log": (
        "Who changed what.",
        {
            "list": ("audit_log:list_", "List changes, newest first."),
            "verify": ("audit_log:verify", "Say whether the log is as it was written."),
        },
    ),
    "tls": (
        "Certificates, for a site without an authority of its own.",
        {
            "make-ca": ("tls:make_ca", "Make a certificate authority."),
            "issue": ("tls:issue", "Issue a certificate for a host."),
        },
    ),
    "db": (
        "Databases.",
        {
            "upgrade": ("system:db_upgrade", "Bring the databases to this version's schema."),
            "copy": ("system:db_copy", "Copy the databases to others, such as SQLite to PostgreSQL."),
        },
    ),
}
"""Nouns with their verbs: where each is (module:attribute below beamkeeper.cli), and its one line of help."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("system:up", "Bring a beamline up on this machine."),
    "down": ("system:down", "Stop the beamline that runs on this machine."),
    "serve": ("system:serve", "Run some services in the foreground."),
    "status": ("system:status", "Show how the services are doing."),
    "portal": ("portal:show", "Show an address that opens the portal in a browser."),
    "demo": ("demo:demo", "Show everything: a beamline, a simulated detector, and a check of all files."),
    "scrub": ("inspections:scrub", "Read copies in the storage again."),
    "audit": ("inspections:audit", "Compare the catalogue with the storage."),
    "backup": ("system:backup", "Save the databases and the settings."),
    "restore": ("system:restore", "Bring back what `dm backup` saved."),
    "login": ("logins:login", "Log in; later commands go on with it."),
    "logout": ("logins:logout", "End the session."),
    "whoami": ("logins:whoami", "Show who is logged in, where, and with which roles."),
    "why": ("why:why", "Show what a file was made from, down to the raw frames."),
    "rerun": ("why:rerun", "Run the job again that made a file."),
    "stats": ("stats:stats", "Count files and bytes by experiment, directory, type or day."),
    "put": ("uploads:put", "Send files from this machine."),
    "download": ("downloads:download", "Bring files of an experiment to this machine."),
}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--url", metavar="URL", help="Address of the storage service.  [env: BEAMKEEPER_URL]")
@click.option("--profile", metavar="NAME", help="Which login to use.  [env: BEAMKEEPER_PROFILE]")
@click.option("--station", metavar="NAME", help="Which station of the site.  [env: BEAMKEEPER_STATION]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="beamkeeper", prog_name="dm")
@click.pass_context
def dm(ctx: click.Context, url: str | None, profile: str | None, station: str | None, as_json: bool) -> None:
    """Beamkeeper keeps every file that a beamline makes."""
    ctx.obj = {"url": url, "profile": profile, "station": station, "json": as_json}


def _fill() -> None:
    for name, (target, line) in COMMANDS.items():
        dm.add_command(Lazy(name, target, line))
    for name, (line, verbs) in GROUPS.items():
        dm.add_command(_group(name, line, verbs))
    for (noun, name), (line, verbs) in SUBGROUPS.items():
        cast(click.Group, dm.commands[noun]).add_command(_group(name, line, verbs))


def _group(name: str, line: str, verbs: Mapping[str, tuple[str, str]]) -> LazyGroup:
    group = LazyGroup(name, help=line, short_help=line)
    for verb, (target, verb_line) in verbs.items():
        group.add_command(Lazy(verb, target, verb_line))
    return group


_fill()

EXIT_CODES: Mapping[str, int] = {
    "error": 1,
    "internal": 1,
    "invalid": 2,
    "too_large": 2,
    "unsafe_value": 2,
    "settings": 3,
    "not_authenticated": 4,
    "too_many_attempts": 4,
    "not_permitted": 5,
    "not_found": 6,
    "conflict": 7,
    "already_exists": 7,
    "overlap": 7,
    "gone": 7,
    "unavailable": 8,
    "collision": 8,
    "mirror_behind": 8,
    "file": 9,
    "source": 9,
    "destination": 9,
}
"""From an error's code to the exit status; 10 is for what was asked for and found wanting, such as a failed upload."""

EXIT_WANTING = 10
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `dm` and end the process with a documented status."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run `dm` and return its exit status."""
    arguments = _join_common(list(sys.argv[1:] if argv is None else argv))
    try:
        result: Any = dm.main(arguments, prog_name="dm", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped.", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, "--json" in arguments)
    return result if isinstance(result, int) else 0


def _join_common(arguments: list[str]) -> list[str]:
    """Let the options for all commands stand anywhere: `dm daq list --json` is `dm --json daq list`."""
    front, rest = [], []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest.extend([word, *words])
        elif word == "--json" or word.startswith(("--url=", "--profile=", "--station=")):
            front.append(word)
        elif word in ("--profile", "--url"):
            front.extend([word, next(words, "")])
        else:
            rest.append(word)
    return front + rest


def _report(error: Exception, as_json: bool) -> int:
    from beamkeeper.cli import output
    from beamkeeper.domain.errors import DmError

    if not isinstance(error, DmError):
        raise error
    output.error(error, as_json=as_json)
    return EXIT_CODES[error.code]
