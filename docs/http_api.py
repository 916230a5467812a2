"""Writes docs/http-api.md from the service's OpenAPI document: `python docs/http_api.py`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rec_engine.serving.api import create_app
from rec_engine.serving.engine import Engine
from rec_engine.serving.security import needed_scope
from rec_engine.utils.config import ServingConfig

PAGE = Path(__file__).with_name("http-api.md")
INTRODUCTION = """# HTTP

Made by `python docs/http_api.py` from the OpenAPI document that a service shows at `/openapi.json`; `/docs` of a
service lets you try each route. Errors are problem JSON (RFC 9457): `type`, `title`, `status`, `detail`, `hint` and
`request_id`.
"""
"""What stands above the routes."""


def page(document: Mapping[str, Any]) -> str:
    """Return the whole page: each route with its scope, what it takes and answers, then each type with its fields."""
    parts = [INTRODUCTION, "## Routes\n"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += list(_route(method.upper(), path, operation))
    parts.append("## Types\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        if "properties" in schema and not name.endswith("-Output"):
            parts += list(_type(name.removesuffix("-Input"), schema))
    return "\n".join(parts)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    scope = needed_scope(method, path)
    yield f"### `{method} {path}`\n"
    yield f"{operation['description']} Scope: {scope or 'none, and no key'}.\n"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = (f"| `{each['name']}` | {each['in']} | {_kind(each['schema'])} |" for each in parameters)
        yield "| parameter | in | type |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    if "requestBody" in operation:
        yield f"Takes {_kind(operation['requestBody']['content']['application/json']['schema'])}.\n"
    status, answer = next(iter(operation["responses"].items()))
    content = answer.get("content")
    told = "nothing" if content is None else _answer(content)
    yield f"Answers {status}: {told}.\n"


def _answer(content: Mapping[str, Any]) -> str:
    ((kind, described),) = content.items()
    schema = described["schema"]
    return _kind(schema) if kind == "application/json" and schema else f"`{kind}`"


def _type(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield f"### {name}\n"
    if "description" in schema:
        yield f"{_line(schema['description'])}\n"
    rows = []
    for field, described in schema["properties"].items():
        default = "" if field in required else f"`{json.dumps(described['default'])}`" if "default" in described else ""
        about = _line(described.get("description", ""))
        rows.append(f"| `{field}` | {_kind(described)} | {'required' if field in required else default} | {about} |")
    yield "| field | type | default | what it is |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a type in words; one of the document's own is a link to its fields."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removesuffix("-Input").removesuffix("-Output")
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[key]))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return f"{schema.get('type', 'any')}{_bounds(schema)}"


def _bounds(schema: Mapping[str, Any]) -> str:
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    told = [f"{words} {schema[key]}" for key, words in names.items() if key in schema]
    return f", {', '.join(told)}" if told else ""


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def document() -> Mapping[str, Any]:
    """Return the OpenAPI document; its routes need no model to be described."""
    never_asked = SimpleNamespace(config=ServingConfig(), telemetry=None, experiments=None)
    return create_app(cast("Engine", never_asked)).openapi()


if __name__ == "__main__":
    PAGE.write_text(page(document()), encoding="utf-8")
