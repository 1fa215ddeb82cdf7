"""Values written as Python: literals and `+` between texts, and nothing that could run."""

from __future__ import annotations

import ast
import re
import warnings

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError

MAX_DEPTH = 40
MAX_TEXT = 1024 * 1024

_QUOTE = re.compile(r"(?i:(?P<prefix>\b[rbuf]{1,2})?)(?P<quote>'''|\"\"\"|'|\")|(?P<comment>\#[^\n]*)")
_END = {"'": re.compile(r"\\.|'|\n\s*", re.DOTALL), '"': re.compile(r"\\.|\"|\n\s*", re.DOTALL)}


def parse_literal(text: str) -> JsonValue:
    """Return the value of a Python literal; refuse anything else, with the line where it stands."""
    if len(text) > MAX_TEXT:
        raise InvalidError(f"a definition of {len(text)} characters is refused: at most {MAX_TEXT}")
    joined = f"({_without_line_breaks(text)}\n)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(joined, mode="eval")
    except SyntaxError as error:
        raise _refusal(error.msg, error.lineno) from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise _refusal("it is nested too deeply, or holds a NUL", None) from error
    return _value(tree.body, 0)


def _refusal(reason: str, line: int | None) -> InvalidError:
    where = f", line {line}" if line else ""
    return InvalidError(f"the Python literal{where}: {reason}", line=line, reason=reason)


def _without_line_breaks(text: str) -> str:
    """Return the text with each line break inside single quotes as one blank, as the founding paper prints them.

    Python itself refuses such a break, so that nothing which it reads is read in another way here.
    """
    found: list[str] = []
    at = 0
    while match := _QUOTE.search(text, at):
        found.append(text[at : match.end()])
        at = match.end()
        quote = match["quote"]
        if quote is None:
            continue
        if len(quote) == 3:
            end = _triple_end(text, at, quote)
            found.append(text[at:end])
        else:
            body, end = _quoted(text, at, quote)
            found.append(body)
        at = end
    found.append(text[at:])
    return "".join(found)


def _triple_end(text: str, at: int, quote: str) -> int:
    match = re.compile(rf"(?s:(?:\\.|.)*?){quote}").match(text, at)
    return match.end() if match else len(text)


def _quoted(text: str, at: int, quote: str) -> tuple[str, int]:
    """Return what follows an opening quote, up to and with the closing one, and where that ends."""
    found: list[str] = []
    breaks = 0
    while match := _END[quote].search(text, at):
        found.append(text[at : match.start()])
        at = match.end()
        if match[0][0] == "\n":
            found.append(" ")
            breaks += match[0].count("\n")
        else:
            found.append(match[0])
            if match[0] == quote:
                return "".join(found) + "\n" * breaks, at
    raise _refusal("a quote is never closed", None)


def _value(node: ast.expr, depth: int) -> JsonValue:
    if depth > MAX_DEPTH:
        raise _refusal(f"it is nested deeper than {MAX_DEPTH} levels", node.lineno)
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _dictionary(node, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _sum(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, depth + 1)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    raise _refusal(
        "only texts, numbers, True, False, None, lists, dictionaries and + between texts are read", node.lineno
    )


def _dictionary(node: ast.Dict, depth: int) -> JsonValue:
    found: dict[str, JsonValue] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        name = None if key is None else _value(key, depth + 1)
        if not isinstance(name, str):
            raise _refusal("the keys of a dictionary are texts", item.lineno)
        if name in found:
            raise _refusal(f'the key "{name[:80]}" stands twice in one dictionary', item.lineno)
        found[name] = _value(item, depth + 1)
    return found


def _sum(node: ast.BinOp) -> str:
    """Return texts joined; walked from the left without recursion, since there may be a `+` on each line."""
    parts: list[str] = []
    left: ast.expr = node
    while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add):
        parts.append(_text(left.right))
        left = left.left
    return "".join([_text(left), *reversed(parts)])


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp):
        return _sum(node)
    raise _refusal("+ joins texts only", node.lineno)
