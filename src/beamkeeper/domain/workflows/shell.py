"""Commands read as a shell reads them: where each variable stands, in which quotes, and in which simple command."""

from __future__ import annotations

import re

from beamkeeper.domain.workflows.words import (
    ASSIGNMENT,
    NAME,
    Form,
    HereDocument,
    Quote,
    Reading,
    Reference,
    Simple,
    Word,
    identifiers,
    is_beginning,
    is_test,
    place,
    refusal,
)

MAX_DEPTH = 20

_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_DELIMITER = re.compile(r"[ \t]*((?:\\.|'[^'\n]*'|\"[^\"\n]*\"|[^\s;&|<>()'\"\\])+)", re.DOTALL)
_REDIRECTION = re.compile(r"&>>?|<<<|<<-?|>>|>\||<>|[<>]&|[<>]")
_SEPARATOR = re.compile(r"&&|\|\||;;&|;;|;&|;|&")


def read(text: str) -> Reading:
    """Return a command with all its references; InvalidError where no one can say what a shell makes of it."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._end = len(text)
        self._depth = 0
        self._closers: list[str] = []
        self._here: list[HereDocument] = []
        self._found = Reading(text)
        self._refs = self._found.references

    def read(self) -> Reading:
        """Read the whole."""
        self._commands("")
        self._refs.sort(key=lambda reference: reference.start)
        return self._found

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : min(self._at + length, self._end)]

    def _commands(self, closer: str) -> None:
        """Read commands up to what closes them, which is taken."""
        self._deeper(closer)
        pipeline = [Simple()]
        while self._at < self._end:
            char = self._peek()
            if char == closer:
                break
            if is_test(pipeline[-1]) and char in "&|()<>":
                self._at += 1
            elif char in " \t" or self._peek(2) == "\\\n":
                self._at += 1 if char in " \t" else 2
            elif char == "#":
                self._at = self._line_end()
            elif char == "\n":
                self._found.pipelines.append(pipeline)
                pipeline = [Simple()]
                self._at += 1
                self._here_documents()
            elif self._peek(2) != "||" and char == "|":
                self._at += 2 if self._peek(2) == "|&" else 1
                pipeline.append(Simple())
            elif char in "()" or (self._peek(2) != "&>" and _SEPARATOR.match(self._text, self._at, self._end)):
                pipeline = self._separated(pipeline)
            else:
                self._part(pipeline[-1])
        self._found.pipelines.append(pipeline)
        self._shallower(closer)

    def _deeper(self, closer: str) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refusal(f"substitutions are nested deeper than {MAX_DEPTH} levels")
        self._closers.append(closer)

    def _shallower(self, closer: str) -> None:
        self._closers.pop()
        self._depth -= 1
        if closer:
            if self._at >= self._end:
                raise refusal(f"a substitution is never closed: {closer} is missing")
            self._at += 1

    def _line_end(self) -> int:
        found = self._text.find("\n", self._at, self._end)
        return self._end if found < 0 else found

    def _separated(self, pipeline: list[Simple]) -> list[Simple]:
        if self._peek(2) == "((" and is_beginning(pipeline[-1]):
            self._at += 2
            self._arithmetic("))", pipeline[-1])
            return pipeline
        separator = _SEPARATOR.match(self._text, self._at, self._end)
        mark = separator[0] if separator else self._peek()
        self._at += len(mark)
        self._found.pipelines.append(pipeline)
        return [Simple(closes_group=mark == ")")]

    def _part(self, command: Simple) -> None:
        """Read a word or a redirection of a command."""
        redirection = _REDIRECTION.match(self._text, self._at, self._end)
        if redirection and self._text[redirection.end() : redirection.end() + 1] == "(" and redirection[0] in "<>":
            redirection = None
        if redirection is None:
            before = len(self._refs)
            word = self._word()
            command.references += self._refs[before:]
            if not (word.text.isdigit() and word.is_literal and self._peek() and self._peek() in "<>"):
                self._named(command, word)
            return
        self._at = redirection.end()
        command.has_input |= redirection[0].startswith("<")
        if redirection[0] in ("<<", "<<-"):
            self._opened(redirection[0], command)
            return
        while self._peek() and self._peek() in " \t":
            self._at += 1
        before = len(self._refs)
        self._word()
        command.references += self._refs[before:]

    def _named(self, command: Simple, word: Word) -> None:
        if word.is_literal and word.text == "case" and is_beginning(command) and any(self._closers):
            raise refusal("`case` stands inside a substitution: put it into a script")
        command.words.append(word)

    def _opened(self, mark: str, command: Simple) -> None:
        found = _DELIMITER.match(self._text, self._at, self._end)
        if found is None:
            raise refusal("a here-document has no delimiter")
        self._at = found.end()
        plain = re.sub(r"\\(.)|['\"]", r"\1", found[1])
        self._here.append(HereDocument(plain, plain != found[1], mark == "<<-", command))

    def _here_documents(self) -> None:
        waiting, self._here = self._here, []
        for here in waiting:
            before = len(self._refs)
            begin, end = self._at, self._here_end(here)
            if here.is_literal:
                self._literal(begin, end, Quote.LITERAL_HERE)
            else:
                self._body(end)
            if self._text.startswith("#!", begin):
                for reference in self._refs[before:]:
                    reference.reread = "the script that it writes"
            here.command.references += self._refs[before:]
            self._at = min(self._line_end() + 1, self._end) if end < self._end else self._end

    def _here_end(self, here: HereDocument) -> int:
        at = self._at
        while at < self._end:
            stop = self._text.find("\n", at, self._end)
            stop = self._end if stop < 0 else stop
            line = self._text[at:stop]
            if (line.lstrip("\t") if here.strips_tabs else line) == here.delimiter:
                return at
            at = stop + 1
        return self._end

    def _body(self, end: int) -> None:
        whole, self._end = self._end, end
        while self._at < end:
            char = self._peek()
            if char == "\\":
                self._at = min(self._at + 2, end)
            elif char == "$":
                self._dollar(Quote.HERE)
            elif char == "`":
                self._backquoted()
            else:
                self._at += 1
        self._end, self._at = whole, end

    def _literal(self, begin: int, end: int, quote: Quote) -> None:
        """Note what looks like a variable in a text that the shell leaves alone."""
        for found in _REFERENCE.finditer(self._text, begin, end):
            form = Form.BRACED if found[1] else Form.NAME
            self._refs.append(Reference(found.start(), found.end(), found[1] or found[2], form, quote))
        self._at = end

    def _word(self) -> Word:
        start, before = self._at, len(self._refs)
        parts: list[str] = []
        kinds: list[str] = []
        ends = " \t\n;&|<>()" + (self._closers[-1] if self._closers[-1] == "`" else "")
        while self._at < self._end and (self._peek() not in ends or self._peek(2) in ("<(", ">(")):
            kinds.append(self._piece(parts))
        if self._peek() == "(" and self._text[start : self._at].endswith("=") and ASSIGNMENT.match(self._text, start):
            self._array()
            kinds.append("array")
        found = self._refs[before:]
        word = Word(start, self._at, "".join(parts), not _MOVING.intersection(kinds), found)
        if kinds == ["single"]:
            word.script = (start + 1, self._at - 1)
        place(found, self._text, start, self._at)
        return word

    def _piece(self, parts: list[str]) -> str:
        """Read one piece of a word, and return what kind it is."""
        char, begin = self._peek(), self._at
        if char == "'":
            end = self._text.find("'", begin + 1, self._end)
            if end < 0:
                raise refusal("a single quote is never closed")
            self._literal(begin + 1, end, Quote.SINGLE)
            self._at = end + 1
            parts.append(self._text[begin + 1 : end])
            return "single"
        if char == '"':
            self._at += 1
            return self._double(parts)
        if char == "\\":
            parts.append(self._text[begin + 1 : begin + 2])
            self._at = min(begin + 2, self._end)
            return "plain"
        if char == "$":
            return self._dollar(Quote.BARE)
        if char == "`":
            self._backquoted()
            return "command"
        if self._peek(2) in ("<(", ">("):
            self._at += 2
            self._commands(")")
            return "command"
        parts.append(char)
        self._at += 1
        return "plain"

    def _double(self, parts: list[str]) -> str:
        kind = "double"
        while self._at < self._end:
            char = self._peek()
            if char == '"':
                self._at += 1
                return kind
            if char == "\\":
                parts.append(self._text[self._at + 1 : self._at + 2])
                self._at += 2
            elif char == "$":
                found = self._dollar(Quote.DOUBLE)
                kind = found if kind == "double" else kind
            elif char == "`":
                self._backquoted()
                kind = "command"
            else:
                parts.append(char)
                self._at += 1
        raise refusal("a double quote is never closed")

    def _array(self) -> None:
        self._at += 1
        while self._at < self._end and self._peek() != ")":
            if self._peek() in " \t\n":
                self._at += 1
            elif self._peek() in ";&|<>(":
                raise refusal("an array holds what is no word")
            else:
                self._word()
        self._at += 1

    def _backquoted(self) -> None:
        """Read a substitution in backquotes; with a backslash in it, quotes mean other things than they say."""
        end = self._text.find("`", self._at + 1, self._end)
        inside = self._text[self._at + 1 : end]
        if end < 0:
            raise refusal("a backquote is never closed")
        if "\\" in inside:
            raise refusal("a backslash stands inside backquotes: write $(...)")
        self._at += 1
        self._commands("`")

    def _dollar(self, quote: Quote, is_inner: bool = False) -> str:
        """Read what a `$` begins, and return what kind of piece it is."""
        begin = self._at
        if self._peek(3) == "$((":
            self._at += 3
            self._arithmetic("))")
        elif self._peek(2) == "$(":
            self._at += 2
            self._commands(")")
        elif self._peek(2) == "$[":
            self._at += 2
            self._arithmetic("]")
        elif self._peek(2) == "${":
            self._braced(quote, is_inner)
        elif self._peek(2) == "$'" and quote is Quote.BARE:
            self._ansi()
        elif name := NAME.match(self._text, begin + 1, self._end):
            self._at = name.end()
            self._refs.append(Reference(begin, self._at, name[0], Form.NAME, quote, is_inner))
        elif self._peek(2)[1:] and self._peek(2)[1] in "0123456789@*#?-$!":
            self._at += 2
            self._refs.append(Reference(begin, self._at, self._text[begin + 1], Form.SPECIAL, quote, is_inner))
        else:
            self._at += 1
            return "double" if quote is Quote.DOUBLE else "plain"
        return "command"

    def _ansi(self) -> None:
        begin = self._at + 2
        end = re.compile(r"(?:\\.|[^'\\])*'", re.DOTALL).match(self._text, begin, self._end)
        if end is None:
            raise refusal("a single quote is never closed")
        self._literal(begin, end.end() - 1, Quote.ANSI)
        self._at = end.end()

    def _braced(self, quote: Quote, is_inner: bool) -> None:
        begin = self._at
        mark = self._text[begin + 2 : begin + 3]
        self._at += 3 if mark and mark in "#!" else 2
        name = NAME.match(self._text, self._at, self._end)
        if name is None:  # ${1}, ${@}, ${#}
            self._refs.append(Reference(begin, begin + 2, "@", Form.SPECIAL, quote, is_inner))
            self._at = begin + 2
            self._inside(quote, is_number=False)
            return
        self._at = name.end()
        operator = self._peek(2)
        place = len(self._refs)
        is_number = operator[:1] == "[" or (operator[:1] == ":" and operator[1:] not in ("-", "=", "?", "+"))
        if operator[:1] == "@":
            raise refusal(f"${{{name[0]}@...}} reads a value again: take it out")
        self._inside(quote, is_number)
        form = Form.BRACED if self._at == name.end() + 1 and self._text[begin + 2] not in "#!" else Form.EXPANSION
        reference = Reference(begin, self._at, name[0], form, quote, is_inner)
        reference.reread = "the indirection" if mark == "!" else ""
        self._refs.insert(place, reference)

    def _inside(self, quote: Quote, is_number: bool) -> None:
        """Read on to the brace that closes; what stands before it is read by the shell as part of the expansion."""
        before = len(self._refs)
        begin = self._at
        while self._peek() != "}":
            char = self._peek()
            if not char:
                raise refusal("a brace is never closed: } is missing")
            if char == "'":
                raise refusal("a single quote stands inside ${...}: shells differ in what it means")
            if char == "\\":
                self._at += 2
            elif char == '"':
                if quote is not Quote.BARE:
                    raise refusal("quotes stand inside ${...} inside quotes: shells differ in what they mean")
                self._at += 1
                self._double([])
            elif char == "$":
                self._dollar(quote, is_inner=True)
            elif char == "`":
                self._backquoted()
            else:
                self._at += 1
        if is_number:
            self._calculated(begin, self._at, before)
        self._at += 1

    def _arithmetic(self, closer: str, command: Simple | None = None) -> None:
        """Read arithmetic: bash reads the value of each name in it as arithmetic again, and runs what that holds."""
        before, begin, depth = len(self._refs), self._at, 0
        while self._at < self._end and (depth or not self._text.startswith(closer, self._at)):
            char = self._peek()
            depth += (char == "(") - (char == ")")
            if depth < 0:
                break
            if char == "$":
                self._dollar(Quote.DOUBLE, is_inner=True)
            elif char == "`":
                self._backquoted()
            else:
                self._at += 1
        if not self._text.startswith(closer, self._at):
            raise refusal(f"arithmetic is never closed: {closer} is missing")
        self._calculated(begin, self._at, before)
        if command is not None:
            command.references += self._refs[before:]
        self._at += len(closer)

    def _calculated(self, begin: int, end: int, before: int) -> None:
        self._refs += identifiers(self._text, begin, end)
        for reference in self._refs[before:]:
            reference.reread, reference.is_number = "arithmetic", True


_MOVING = frozenset({"command", "array"})
