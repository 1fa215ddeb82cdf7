"""Log lines: one line for each fact, as text or JSON, with the fields that go with it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _safe(value: object) -> str:
    """A value on one line: what a name or an answer carries must not become a line of its own (CWE-117)."""
    return "".join(c if c.isprintable() else "\\x" + c.encode("utf-8", "surrogatepass").hex() for c in str(value))


class TextLines(logging.Formatter):
    """Time, level, event, and its fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of an exception below it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = "".join(f" {key}={_safe(value)}" for key, value in _fields(record).items())
        line = f"{at} {record.levelname.lower():7} {record.name}: {_safe(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        found: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str, ensure_ascii=True)


def set_up(level: str, form: str) -> None:
    """Write log lines to standard error, which the supervisor keeps in a file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx2", "httpcore2", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
