"""Looking for a part of a text, in either case, the same on both databases."""

from __future__ import annotations

import string
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlalchemy.orm import InstrumentedAttribute

_ASCII_LOWER = {ord(upper): ord(upper.lower()) for upper in string.ascii_uppercase}
"""Both databases fold the case of ASCII only, where text compares by bytes."""


def has_text(text: str, *columns: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """Return the condition that one of these columns has a text in it."""
    part = text.translate(_ASCII_LOWER)
    return or_(*(func.lower(column).contains(part, autoescape=True) for column in columns))
