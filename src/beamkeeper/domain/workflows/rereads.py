"""Which programs read their arguments again as code: what stands there is safe only as long as it is plain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from posixpath import basename

from beamkeeper.domain.workflows.words import (
    ASSIGNMENT,
    BEFORE_COMMANDS,
    NAME,
    Reading,
    Reference,
    Simple,
    Word,
    assigned,
    identifiers,
)

_SHELLS = frozenset(
    {
        "sh",
        "bash",
        "dash",
        "ash",
        "zsh",
        "ksh",
        "mksh",
        "csh",
        "tcsh",
        "fish",
        "busybox",
        "rbash",
    }
)
_WHOLLY = frozenset(
    {
        "ssh",
        "slogin",
        "rsh",
        "eval",
        "su",
        "runuser",
        "pdsh",
        "clush",
        "dsh",
        "pssh",
        "parallel",
        "watch",
        "at",
        "batch",
        "trap",
        "alias",
        "make",
        "gmake",
        "crontab",
        "expect",
        "gdb",
        "screen",
        "tmux",
        "bsub",
        "sqlite3",
        "psql",
        "mysql",
        "unset",
        "mapfile",
        "readarray",
        "compgen",
        "complete",
        "bind",
        "enable",
        "let",
    }
)
_ASSIGNING = frozenset(
    {
        "export",
        "readonly",
        "local",
        "declare",
        "typeset",
        "read",
        "getopts",
    }
)
_WRAPPERS = frozenset(
    {
        "sudo",
        "env",
        "nohup",
        "time",
        "nice",
        "ionice",
        "timeout",
        "exec",
        "command",
        "builtin",
        "srun",
        "mpirun",
        "mpiexec",
        "salloc",
        "strace",
        "setsid",
        "stdbuf",
        "xargs",
        "find",
        "unshare",
        "chroot",
        "doas",
        "singularity",
        "apptainer",
        "docker",
        "podman",
        "flock",
        "numactl",
        "taskset",
        "chrt",
        "script",
        "newgrp",
        "sg",
        "coproc",
    }
)
_CODE_OPTIONS = {
    "python": "c",
    "perl": "eE",
    "ruby": "e",
    "node": "ep",
    "lua": "e",
    "R": "e",
    "Rscript": "e",
    "octave": "e",
    "gnuplot": "e",
    "julia": "eE",
    "php": "r",
    "matlab": "r",
    "idl": "e",
}
_LONG_CODE_OPTIONS = re.compile(r"--?(eval|exec|execute|batch|wrap|run|expression|command|print)(=.*)?")
_BATCH = frozenset({"sbatch", "qsub"})
_PROGRAM_FIRST = frozenset({"awk", "gawk", "mawk", "nawk", "sed"})
_COMPARES_NUMBERS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"})
_ENDS_GROUP = frozenset({"}", "done", "fi", "esac"})


def judge(reading: Reading) -> Reading:
    """Mark each reference whose value is read again, and note which variables the command sets itself."""
    for pipeline in reading.pipelines:
        for simple in pipeline:
            reading.locals.update(_set_by(simple))
    reads_unknown = False
    for pipeline in reading.pipelines:
        for simple in pipeline:
            _Judge(reading, simple, pipeline).judge()
        reads_unknown |= _is_fed_by_group(reading, pipeline)
    known = {reference.name for reference in reading.references if reference.reread}
    if reads_unknown or known & reading.locals or any(name in "@*" or name.isdigit() for name in known):
        for reference in reading.references:
            reference.reread = reference.reread or "what the command sets itself and reads again"
    return reading


def _is_fed_by_group(reading: Reading, pipeline: Sequence[Simple]) -> bool:
    """Whether a shell reads as commands what a loop or a group before it in the pipeline writes."""
    ends = any(command.words and command.words[0].text in _ENDS_GROUP for command in pipeline[:-1])
    ends |= len(pipeline) > 1 and pipeline[0].closes_group
    return ends and any(_Judge(reading, command, pipeline).is_fed() for command in pipeline[1:])


def _set_by(simple: Simple) -> Iterable[str]:
    words = [word for word in simple.words if word.text not in BEFORE_COMMANDS or not word.is_literal]
    for word in words:
        name = assigned(word.text) if word.start != word.end else ""
        if not name:
            break
        yield name
    names = [word.text for word in words if word.is_literal]
    if names[:1] == ["for"] or names[:1] == ["select"]:
        yield from names[1:2]
    for place, name in enumerate(names):
        if name in _ASSIGNING:
            yield from (found[0] for text in names[place + 1 :] if (found := NAME.match(text)))
            yield from (assigned(word.text) for word in words if not word.is_literal and assigned(word.text))


class _Judge:
    """What one simple command does with its words."""

    def __init__(self, reading: Reading, simple: Simple, pipeline: Sequence[Simple]) -> None:
        self._reading = reading
        self._simple = simple
        self._pipeline = pipeline
        words = list(simple.words)
        while words and words[0].is_literal and words[0].text in BEFORE_COMMANDS:
            words.pop(0)
        self._assignments: list[Word] = []
        while words and ASSIGNMENT.match(words[0].text):
            self._assignments.append(words.pop(0))
        self._words = words

    def judge(self) -> None:
        """Mark the references in it."""
        self._subscripts(self._assignments)
        if not self._words:
            return
        name = self._words[0]
        if not name.is_literal:
            for reference in name.references:
                reference.is_command, reference.reread = True, reference.reread or "the shell, as a command"
            return
        self._named(basename(name.text), self._words[1:], is_direct=True)

    def is_fed(self) -> bool:
        """Whether it reads commands from its standard input."""
        name = basename(self._words[0].text) if self._words and self._words[0].is_literal else ""
        return name in _SHELLS | _WHOLLY | _WRAPPERS | _BATCH or re.sub(r"[\d.]+$", "", name) in _CODE_OPTIONS

    def _subscripts(self, words: Iterable[Word]) -> None:
        for word in words:
            text = self._reading.text[word.start : word.end]
            found = ASSIGNMENT.match(text)
            if found is None or found[2]:
                self._mark(word.references, "arithmetic", is_number=True)
                self._reading.references += identifiers(self._reading.text, word.start, word.start + text.find("="))

    def _mark(self, references: Iterable[Reference], why: str, is_number: bool = False) -> None:
        for reference in references:
            reference.reread = reference.reread or why
            reference.is_number |= is_number

    def _mark_all(self, why: str) -> None:
        """Mark what stands anywhere in the pipeline: it may come in by the standard input."""
        for command in self._pipeline:
            self._mark(command.references, why)

    def _named(self, name: str, words: Sequence[Word], is_direct: bool) -> None:
        program = re.sub(r"[\d.]+$", "", name)
        if name in _WHOLLY:
            self._mark_all(name)
        elif name in _SHELLS:
            self._shell(name, words, is_direct)
        elif program in _CODE_OPTIONS:
            self._interpreter(program, words)
        elif name in _PROGRAM_FIRST:
            self._first_operand(name, words)
        elif name in _WRAPPERS:
            self._wrapper(name, words)
        elif name in _BATCH:
            self._batch(name, words)
        elif name in _ASSIGNING or name in ("printf", "test", "[", "[["):
            self._builtin(name, words)
        elif name in ("scp", "rsync"):
            self._mark((r for w in words if ":" in w.text for r in w.references), f"{name}, at the other host")
        elif name in (".", "source") and words and not words[0].is_literal:
            self._mark(words[0].references, name)

    def _shell(self, name: str, words: Sequence[Word], is_direct: bool) -> None:
        takes_code = False
        for word in words:
            if word.is_literal and word.text[:1] in ("-", "+") and len(word.text) > 1:
                takes_code |= "c" in word.text and not word.text.startswith("--")
                if word.text[1:] in ("o", "O", "s", "-rcfile", "-init-file"):
                    self._mark_all(name)
                continue
            if takes_code and is_direct and word.script is not None:
                self._reading.scripts.append(word.script)
            elif takes_code or not word.is_literal:
                self._mark(word.references, name)
            return
        self._mark_all(name)

    def _interpreter(self, name: str, words: Sequence[Word]) -> None:
        options = _CODE_OPTIONS[name]
        for place, word in enumerate(words):
            is_code = re.fullmatch(rf"-[A-Za-z]*[{options}].*", word.text) or _LONG_CODE_OPTIONS.fullmatch(word.text)
            if is_code:
                self._mark((r for later in words[place : place + 2] for r in later.references), name)
                return
            if word.text == "-" or not word.text.startswith("-"):
                break
        if not words or words[0].text == "-":
            self._mark_all(name)
        elif not words[0].is_literal:
            self._mark(words[0].references, name)

    def _first_operand(self, name: str, words: Sequence[Word]) -> None:
        """Mark the program of awk or sed: the first operand, or what follows an option that gives it."""
        skips = False
        for word in words:
            option = word.text if word.is_literal and re.fullmatch(r"-[a-zA-Z]+", word.text) else ""
            if skips or (option and option[-1] not in "ef"):
                skips = not skips and option[-1:] == "v"
                continue
            if option[-1:] == "f":
                return
            if option[-1:] == "e":
                self._mark((reference for later in words for reference in later.references), name)
            self._mark(word.references, name)
            return

    def _wrapper(self, name: str, words: Sequence[Word]) -> None:
        """Look for the command in the words of one that runs others."""
        if name == "env" and any(word.text.startswith("-S") or word.text.startswith("--split") for word in words):
            self._mark_all(name)
        if name in ("flock", "script", "sg") and any(word.text == "-c" for word in words):
            self._mark_all(name)
        for place, word in enumerate(words):
            inner = basename(word.text) if word.is_literal else ""
            if self._is_known(inner):
                self._named(inner, words[place + 1 :], is_direct=False)
                if name == "xargs":
                    self._mark_all(inner)
                return
            is_first = all(self._may_precede(earlier) for earlier in words[:place]) and name not in ("find", "xargs")
            if is_first and not word.is_literal and not self._may_precede(word):
                self._mark(word.references, f"{name}, as a command")
                for reference in word.references:
                    reference.is_command = reference.begins_word

    @staticmethod
    def _may_precede(word: Word) -> bool:
        return word.text.startswith("-") or bool(ASSIGNMENT.match(word.text)) or word.text[:1].isdigit()

    @staticmethod
    def _is_known(name: str) -> bool:
        return bool(name) and (
            name in _WHOLLY | _SHELLS | _WRAPPERS | _BATCH
            or name in _PROGRAM_FIRST
            or re.sub(r"[\d.]+$", "", name) in _CODE_OPTIONS
        )

    def _batch(self, name: str, words: Sequence[Word]) -> None:
        wraps = any(word.text.startswith("--wrap") or word.text == "-b" for word in words)
        if wraps or self._simple.has_input or len(self._pipeline) > 1:
            self._mark_all(name)

    def _builtin(self, name: str, words: Sequence[Word]) -> None:
        texts = [word.text for word in words]
        if name == "[[":
            if _COMPARES_NUMBERS.intersection(texts):
                self._numbers(words)
        elif name in ("test", "["):
            self._mark((r for w in words for r in w.references if "-v" in texts), name)
        elif name == "printf":
            self._mark((r for w in words for r in w.references if "-v" in texts[:1]), name)
        elif any(text.startswith("-") and "i" in text for text in texts) and name != "read":
            self._numbers(words)
        else:
            for word in words:
                if not ASSIGNMENT.match(self._reading.text[word.start : word.end]) and not word.text.startswith("-"):
                    self._mark(word.references, name)

    def _numbers(self, words: Sequence[Word]) -> None:
        for word in words:
            self._mark(word.references, "arithmetic", is_number=True)
            if word.is_literal and word.text not in ("]]", "-v"):
                self._reading.references += identifiers(self._reading.text, word.start, word.end)
