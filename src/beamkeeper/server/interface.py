"""The page that shows a service's interface: drawn here, of the OpenAPI document, without script or another server.

Beamlines have no internet; the usual viewers are scripts of a megabyte and more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete")


def page(document: Mapping[str, Any], address: str) -> str:
    """Return the page of an OpenAPI document, which has this address."""
    title = escape(document["info"]["title"])
    return "\n".join(
        (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width"></head><body>',
            f"<h1>{title} {escape(document['info']['version'])}</h1>",
            f'<p>{escape(document["info"]["description"])} The same for programs: <a href="{address}">OpenAPI</a>.</p>',
            *_routes(document["paths"]),
            "<h2>Schemas</h2>",
            *(_folded(name, one) for name, one in sorted(document.get("components", {}).get("schemas", {}).items())),
            "</body></html>",
        )
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is, by what it is about."""
    by_tag: dict[str, list[str]] = {}
    for path, item in paths.items():
        for method in filter(item.__contains__, METHODS):
            by_tag.setdefault(next(iter(item[method].get("tags", ())), "other"), []).append(
                _route(method, path, item[method])
            )
    for tag, routes in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from routes


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    """Return one route: what it does in a line, and the rest folded."""
    rows = [
        f"<li><code>{escape(one['name'])}</code> ({escape(one['in'])}{', required' if one.get('required') else ''}) "
        f"{escape(one.get('description', ''))}</li>"
        for one in route.get("parameters", ())
    ]
    parts = {"Request": route.get("requestBody", {}).get("content", {}), "Answers": route.get("responses", {})}
    shown = [f"<p>{name}</p><pre>{_json(part)}</pre>" for name, part in parts.items() if part]
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(route.get('summary', ''))}</summary>"
        f"<p>{escape(route.get('description', ''))}</p><ul>{''.join(rows)}</ul>{''.join(shown)}</details>"
    )


def _folded(name: str, schema: Mapping[str, Any]) -> str:
    return f'<details id="{escape(name)}"><summary>{escape(name)}</summary><pre>{_json(schema)}</pre></details>'


def _json(value: Any) -> str:
    return escape(json.dumps(value, indent=1, ensure_ascii=False))
