"""What conditions say together, or in other words, so that an index finds their files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from beamkeeper.domain.query.ast import Builtin, Compare, Field, Glob, In, Leaf, Node
from beamkeeper.domain.query.probes import Span, probes_of
from beamkeeper.domain.terms import words_in

_MAX_SUFFIX = 16
_PIECE = re.compile(r"[*?]+")


def together(nodes: Iterable[Node], builtins: Collection[str]) -> Sequence[Sequence[Compare]]:
    """Return the comparisons of one field that can be one range, for each field that has more than one.

    Of the fields that every file has, those named in `builtins`; of metadata, such as compare in the same dimensions.
    """
    found: defaultdict[tuple[Field, frozenset[str]], list[Compare]] = defaultdict(list)
    for node in nodes:
        if not isinstance(node, Compare) or node.op == "=":
            continue
        if not isinstance(node.field, Builtin):
            dimensions = frozenset(probe.dimension for probe in probes_of(node) if isinstance(probe, Span))
            if dimensions:
                found[node.field, dimensions].append(node)
        elif node.field.name in builtins:
            found[node.field, frozenset()].append(node)
    return [each for each in found.values() if len(each) > 1]


def common(leaves: Sequence[Compare]) -> Sequence[Span]:
    """Return the spans that comparisons of one key leave, one for each dimension.

    A quantity that meets them all lies in one of these. So does a plain number or a text where the key has just one:
    of a list, one item may be above the lower end and another below the upper one.
    """
    first, *others = (
        {probe.dimension: probe for probe in probes_of(leaf) if isinstance(probe, Span)} for leaf in leaves
    )
    for other in others:
        first = {dimension: _both(span, other[dimension]) for dimension, span in first.items()}
    return list(first.values())


def _both(one: Span, other: Span) -> Span:
    """Return where both hold."""
    low, high = one, one
    if other.low is not None and (one.low is None or (other.low, not other.is_low_in) > (one.low, not one.is_low_in)):
        low = other
    if other.high is not None and (one.high is None or (other.high, other.is_high_in) < (one.high, one.is_high_in)):
        high = other
    return Span(one.key, one.dimension, low.low, high.high, low.is_low_in, high.is_high_in)


def suffixes(leaf: Leaf) -> Sequence[str]:
    """Return the types of which every file is that may meet a condition; none where it does not say."""
    match leaf:
        case Compare(Builtin("type"), "=", str(value)):
            found: Sequence[str] = [value]
        case In(Builtin("type"), values):
            found = [value for value in values if isinstance(value, str)]
        case Glob(Builtin("name" | "path"), pattern):
            stem, dot, suffix = pattern.rpartition(".")
            if not dot or not _is_usual(suffix.lower()):
                return []
            # The name may begin with this dot: then it has no type.
            return [suffix.lower()] if stem and stem[-1] not in "*?/" else [suffix.lower(), ""]
        case _:
            return []
    return found if all(map(_is_usual, found)) else []


def _is_usual(suffix: str) -> bool:
    """Whether files are counted by this suffix as it is written."""
    is_plain = suffix.isascii() and suffix.isalnum() and suffix == suffix.lower()
    return is_plain and not suffix.isdigit() and len(suffix) <= _MAX_SUFFIX


def words_within(leaf: Leaf) -> Sequence[str]:
    """Return words with digits, which few files share, that the name of every file has that may meet a condition.

    A word at `*` or `?` may go on there, and one beside a letter of another alphabet may be another word.
    """
    match leaf:
        case Compare(Builtin("name"), "=", str(shape)) | Glob(Builtin("name"), shape):
            pieces = _PIECE.split(shape)
        case _:
            return []
    found: dict[str, None] = {}
    for place, piece in enumerate(pieces):
        begins = "" if place == 0 else "x"
        ends = "" if place == len(pieces) - 1 else "x"
        words = words_in(begins + piece + ends)
        found.update(dict.fromkeys(words[bool(begins) : len(words) - bool(ends)]))
    return [word for word in found if word.isascii() and any(char.isdigit() for char in word)]
