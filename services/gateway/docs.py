"""The description of the gateway for people: one page, made from the OpenAPI document alone.

No script, no inline style and no outside address: it is served under `default-src 'none'; style-src 'self'`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final

Node = Mapping[str, Any]

_SHORT_LIST: Final = 12
_TOKEN: Final = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*")(?=:)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<bare>\b[-\w.+]+\b)')
_CODE: Final = re.compile(r"`([^`]+)`")
_PARTS_PATTERN: Final = re.compile(r"(?=^```)", re.MULTILINE)


def docs_page(document: Node) -> bytes:
    """Return the page of an OpenAPI document, as UTF-8; its style sheet is `docs.css` beside it."""
    info = document["info"]
    title = escape(info["title"])
    body = [
        '<a class="skip" href="#content">Skip to the content</a>',
        f"<header><h1>{title}</h1><p>{escape(info.get('summary', ''))}</p>",
        f'<p class="quiet">Version {escape(info["version"])} of the contract · ',
        '<a href="openapi.json">OpenAPI document</a> · <a href="asyncapi.json">streams (AsyncAPI)</a></p></header>',
        f'<div class="columns">{_contents(document)}<main id="content">',
        f'<section id="introduction"><h2>Introduction</h2>{_prose(info.get("description", ""))}</section>',
        *(_tag(document, tag) for tag in document["tags"]),
        _refusals(document),
        _schemas(document),
        "</main></div>",
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{title}</title><link rel="stylesheet" href="docs.css"></head><body>\n'
    )
    return (head + "\n".join(body) + "\n</body></html>\n").encode()


# --- the parts of the page ---


def _contents(document: Node) -> str:
    lists = []
    for tag in document["tags"]:
        entries = "".join(
            f'<li><a href="#{_e(operation["operationId"])}">{_method(method)} <span>{_path(path)}</span></a></li>'
            for path, method, operation in _operations(document, tag["name"])
        )
        lists.append(f'<p><a href="#tag-{_e(tag["name"])}">{_capital(tag["name"])}</a></p><ul>{entries}</ul>')
    components = document["components"]
    lists.append('<p><a href="#refusals">Refusals</a></p>')
    names = "".join(f'<li><a href="#schema-{_e(name)}">{_e(name)}</a></li>' for name in components["schemas"])
    lists.append('<p><a href="#schemas">Schemas</a></p>')
    lists.append(f"<details><summary>{len(components['schemas'])} schemas</summary><ul>{names}</ul></details>")
    return f'<nav aria-label="Contents"><p><a href="#introduction">Introduction</a></p>{"".join(lists)}</nav>'


def _tag(document: Node, tag: Node) -> str:
    articles = "\n".join(_operation(document, *found) for found in _operations(document, tag["name"]))
    heading = _heading(2, f"tag-{tag['name']}", _capital(tag["name"]))
    return f"<section>{heading}{_prose(tag.get('description', ''))}\n{articles}</section>"


def _operation(document: Node, path: str, method: str, operation: Node) -> str:
    parts = [
        _heading(3, operation["operationId"], f"{_method(method)} <code>{_path(path)}</code>"),
        f'<p class="lead">{_inline(operation["summary"])}</p>',
        f'<p class="who"><strong>Who may call it:</strong> {_who(operation)}</p>',
        _prose(operation.get("description", "")),
    ]
    if operation.get("parameters"):
        parts.append("<h4>Parameters</h4><dl>")
        for parameter in operation["parameters"]:
            kind = f"{_e(parameter['in'])}, {'required' if parameter.get('required') else 'optional'}"
            parts.append(_member(parameter["name"], kind, parameter["schema"], parameter.get("description", "")))
            parts.append(f"<dd>Example: <code>{_e(parameter['example'])}</code></dd>" if "example" in parameter else "")
        parts.append("</dl>")
    if "requestBody" in operation:
        body = operation["requestBody"]
        parts.append(f"<h4>Request body</h4>{_prose(body.get('description', ''))}{_content(body['content'])}")
    parts.append("<h4>Answers</h4>")
    for status, answer in sorted(operation["responses"].items()):
        parts.append(_answer(document, status, answer))
    return f"<article>{''.join(parts)}</article>"


def _answer(document: Node, status: str, answer: Node) -> str:
    phrase = f"{_status(status)} {_e(HTTPStatus(int(status)).phrase)}"
    name = answer.get("$ref", "").rpartition("/")[2]
    if name:
        whole = document["components"]["responses"][name]
        more = f'<p>{_inline(whole["description"])} <a href="#answer-{_e(name)}">Its form and examples</a></p>'
    else:
        more = _answer_body(answer)
    return f'<div class="answer"><h5>{phrase}</h5>{more}</div>'


def _answer_body(answer: Node) -> str:
    headers = "".join(
        _member(name, "header", header["schema"], header.get("description", ""))
        for name, header in answer.get("headers", {}).items()
    )
    listed = f"<dl>{headers}</dl>" if headers else ""
    return f"{_prose(answer['description'])}{listed}{_content(answer.get('content', {}))}"


def _refusals(document: Node) -> str:
    parts = [
        _heading(2, "refusals", "Refusals"),
        "<p>How a request is refused as a whole, wherever that happens.</p>",
    ]
    for name, answer in document["components"]["responses"].items():
        heading = _heading(3, f"answer-{name}", f"{_status_of(answer)} {_words(name)}")
        parts.append(f"<article>{heading}{_answer_body(answer)}</article>")
    return f"<section>{''.join(parts)}</section>"


def _schemas(document: Node) -> str:
    parts = [
        _heading(2, "schemas", "Schemas"),
        "<p>What bodies hold. A member is required unless it is called optional.</p>",
    ]
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<article>{_heading(3, f'schema-{name}', _e(name))}{_prose(schema.get('description', ''))}")
        parts.append(_schema_body(schema))
        parts.append("</article>")
    return f"<section>{''.join(parts)}</section>"


def _schema_body(schema: Node) -> str:
    members = schema.get("properties")
    if not members:
        return f"<p>{_rule(schema)}</p>"
    required = schema.get("required", ())
    rows = "".join(
        _member(name, "" if name in required else "optional", rule, rule.get("description", ""))
        for name, rule in members.items()
    )
    notes = [
        f"<code>{_e(name)}</code> never comes without {_codes(others)}."
        for name, others in schema.get("dependentRequired", {}).items()
    ]
    if schema.get("additionalProperties") is False:
        notes.append("Another member is refused.")
    return f"<dl>{rows}</dl><p>{' '.join(notes)}</p>" if notes else f"<dl>{rows}</dl>"


def _content(content: Node) -> str:
    parts = []
    for media_type, body in content.items():
        parts.append(f'<p class="media"><code>{_e(media_type)}</code>: {_rule(body["schema"])}</p>')
        for number, (name, example) in enumerate(body.get("examples", {}).items()):
            opened = " open" if number == 0 else ""
            parts.append(f"<details{opened}><summary>Example: {_e(name)}</summary>{_json(example['value'])}</details>")
    return "".join(parts)


def _member(name: str, kind: str, schema: Node, description: str) -> str:
    tail = f' <span class="quiet">{kind}</span>' if kind else ""
    meaning = f"<dd>{_inline(description)}</dd>" if description else ""
    titles = schema.get("x-enum-descriptions")
    rule = _meanings(schema["enum"], titles) if titles else f"<dd>{_rule(schema)}</dd>"
    return f"<dt><code>{_e(name)}</code>{tail}</dt>{meaning}{rule}"


def _meanings(values: Iterable[str], titles: Iterable[str]) -> str:
    rows = "".join(
        f"<li><code>{_e(value)}</code>: {_e(title)}</li>" for value, title in zip(values, titles, strict=True)
    )
    return f"<dd>One of<ul>{rows}</ul></dd>"


# --- rules in words ---


def _rule(schema: Node) -> str:
    """Say in words what a schema asks for."""
    match schema:
        case {"$ref": ref}:
            name = _e(ref.rpartition("/")[2])
            return f'<a href="#schema-{name}">{name}</a>'
        case {"anyOf": alternatives} | {"oneOf": alternatives}:
            return f"one of {_either([_rule(part) for part in alternatives])}"
        case {"const": value}:
            return f"always <code>{_e(value)}</code>"
        case {"enum": [only]}:
            return f"always <code>{_e(only)}</code>"
        case {"enum": values} if len(values) > _SHORT_LIST:
            return f"<details><summary>one of {len(values)} values</summary><p>{_codes(values)}</p></details>"
        case {"enum": values}:
            return f"one of {_codes(values)}"
        case {"type": "array"}:
            return _list_rule(schema)
        case {"type": "string"}:
            return _text_rule(schema)
        case {"type": "integer"}:
            return f"a whole number{_range(schema, 'minimum', 'maximum')}"
        case {"type": "boolean"}:
            return "<code>true</code> or <code>false</code>"
        case {"type": "object"}:
            return "a JSON object"
        case _:
            return "any JSON value"


def _list_rule(schema: Node) -> str:
    if "prefixItems" in schema:
        return f"a list of exactly {len(schema['prefixItems'])}: {', '.join(map(_rule, schema['prefixItems']))}"
    once = ", none twice" if schema.get("uniqueItems") else ""
    return f"a list of {_rule(schema.get('items', {}))}{_range(schema, 'minItems', 'maxItems')}{once}"


def _text_rule(schema: Node) -> str:
    kinds = {"date": "a date, YYYY-MM-DD", "date-time": "a time as in RFC 3339, with an offset", "uuid": "a UUID"}
    if schema.get("format") in kinds:
        return kinds[schema["format"]]
    pattern = f", matching <code>{_e(schema['pattern'])}</code>" if "pattern" in schema else ""
    return f"text{_range(schema, 'minLength', 'maxLength', 'characters')}{pattern}"


def _range(schema: Node, low: str, high: str, noun: str = "") -> str:
    least, most = schema.get(low), schema.get(high)
    tail = f" {noun}" if noun else ""
    match least, most:
        case None, None:
            return ""
        case None, _:
            return f", at most {most:,}{tail}"
        case _, None:
            return f", at least {least:,}{tail}"
        case _:
            return f", {least:,} to {most:,}{tail}"


# --- texts ---


def _operations(document: Node, tag: str) -> Iterator[tuple[str, str, Node]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if tag in operation["tags"]:
                yield path, method, operation


def _who(operation: Node) -> str:
    if not operation["security"]:
        return "anyone, without a token"
    return f"{_either([f'<code>{_e(role)}</code>' for role in operation.get('x-roles', ())])}, with its token"


def _heading(level: int, ident: str, inner: str) -> str:
    return f'<h{level} id="{_e(ident)}"><a href="#{_e(ident)}">{inner}</a></h{level}>'


def _method(method: str) -> str:
    return f'<span class="method {_e(method)}">{_e(method.upper())}</span>'


def _status(status: str) -> str:
    return f'<span class="status s{_e(status[0])}">{_e(status)}</span>'


def _status_of(answer: Node) -> str:
    """Return the status of a shared answer: the document says it in the bodies alone."""
    bodies = (example["value"] for body in answer["content"].values() for example in body.get("examples", {}).values())
    return next((_status(str(body["status"])) for body in bodies if "status" in body), "")


def _path(path: str) -> str:
    """Let a long path break at its slashes."""
    return _e(path).replace("/", "<wbr>/")


def _json(value: Any) -> str:
    """Write JSON with its tokens marked; the page has no script that could."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    marked, at = [], 0
    for token in _TOKEN.finditer(text):
        marked.append(escape(text[at : token.start()], quote=False))
        marked.append(f'<span class="{token.lastgroup}">{escape(token[0], quote=False)}</span>')
        at = token.end()
    return f'<pre tabindex="0"><code>{"".join(marked)}{escape(text[at:], quote=False)}</code></pre>'


def _prose(text: str) -> str:
    """Turn what our descriptions use of Markdown into HTML: paragraphs, lists, code."""
    parts = []
    for part in re.split(r"\n{2,}", text.strip()):
        if part.startswith("```"):
            parts.append(f'<pre tabindex="0"><code>{escape(part.strip("`").strip(), quote=False)}</code></pre>')
        elif part.startswith("- "):
            rows = "".join(f"<li>{_inline(row)}</li>" for row in part.removeprefix("- ").split("\n- "))
            parts.append(f"<ul>{rows}</ul>")
        elif part:
            parts.append(f"<p>{_inline(part)}</p>")
    return "".join(parts)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", _e(text))


def _codes(values: Iterable[object]) -> str:
    return ", ".join(f"<code>{_e(value)}</code>" for value in values)


def _either(parts: list[str]) -> str:
    return " or ".join([*([", ".join(parts[:-1])] if parts[1:] else []), *parts[-1:]])


def _words(name: str) -> str:
    """Write `NotFound` as `Not found`."""
    return _e(re.sub(r"(?<=[a-z])([A-Z])", lambda found: f" {found[1].lower()}", name))


def _capital(text: str) -> str:
    return _e(text[:1].upper() + text[1:])


def _e(value: object) -> str:
    return escape(str(value))


DOCS_CSS: Final = b"""\
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --panel: #f1f2ee; --line: #d3d6cd; --ink: #1c211d; --quiet: #555c55; --link: #0b5a52;
  --key: #0b5a52; --text: #7a3d06; --bare: #4b3a97;
  --good: #1d6332; --bad: #8a4b00; --worse: #a11d1d; --plain: #3b4f63; --on: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131815; --panel: #1c231f; --line: #3a443d; --ink: #e7ebe6; --quiet: #a7b1a9; --link: #6fd3c4;
    --key: #6fd3c4; --text: #f0b57c; --bare: #bdb0ff;
    --good: #7fd79a; --bad: #f2b569; --worse: #ff9d94; --plain: #a9c3dd; --on: #131815;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
a { color: var(--link); text-underline-offset: 0.15em; }
a:focus-visible, summary:focus-visible, pre:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; padding: 0.5rem 1rem; background: var(--paper); }
.skip:focus { left: 0; top: 0; }
header { padding: 2.5rem 1.25rem 1.5rem; border-bottom: 1px solid var(--line); background: var(--panel); }
header p { margin-top: 0.25rem; margin-bottom: 0.25rem; }
header > *, header > p { max-width: 78rem; margin-left: auto; margin-right: auto; }
h1 { margin: 0 auto; font-size: 2rem; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 3rem 0 0.5rem; padding-bottom: 0.35rem; border-bottom: 2px solid var(--ink); font-size: 1.5rem; }
h3 { margin: 0; font-size: 1.15rem; overflow-wrap: anywhere; }
h4 { margin: 1.75rem 0 0.5rem; font-size: 1rem; }
h5 { margin: 0; font-size: 0.95rem; }
h2 a, h3 a { color: inherit; text-decoration: none; }
h2 a:hover, h3 a:hover { text-decoration: underline; }
p, ul, dl { margin: 0.5rem 0; }
p, dd, li { max-width: 44rem; }
.columns { max-width: 80.5rem; margin: 0 auto; padding: 0 1.25rem 4rem; }
nav { padding-top: 1rem; font-size: 0.9rem; }
nav p { margin: 1rem 0 0.25rem; font-weight: 600; }
nav ul { margin: 0; padding: 0; list-style: none; }
nav li a { display: flex; gap: 0.5rem; align-items: baseline; padding: 0.25rem 0; min-height: 1.5rem; }
nav li a { text-decoration: none; overflow-wrap: anywhere; }
nav li a:hover { text-decoration: underline; }
nav p a { color: var(--ink); }
article { margin: 1.25rem 0; padding: 1.25rem; border: 1px solid var(--line); border-radius: 0.5rem; }
code, pre { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
pre {
  margin: 0.5rem 0; padding: 0.85rem 1rem; overflow-x: auto; border: 1px solid var(--line); border-radius: 0.35rem;
  background: var(--panel); font-size: 0.9rem; line-height: 1.45;
}
pre code { overflow-wrap: normal; }
.key { color: var(--key); } .text { color: var(--text); } .bare { color: var(--bare); }
.quiet { color: var(--quiet); font-weight: 400; }
.lead { font-size: 1.05rem; font-weight: 600; }
.method, .status {
  display: inline-block; flex: none; padding: 0 0.4em; border-radius: 0.25rem;
  background: var(--plain); color: var(--on); font: 600 0.8em/1.6 ui-monospace, Menlo, Consolas, monospace;
}
.method.post, .status.s2 { background: var(--good); }
.status.s4 { background: var(--bad); } .status.s5 { background: var(--worse); }
.answer { padding: 0.75rem 0; border-top: 1px solid var(--line); }
summary { padding: 0.25rem 0; cursor: pointer; }
dt { margin-top: 0.75rem; font-weight: 600; }
dd { margin: 0 0 0 1rem; }
dd + dd { color: var(--quiet); }
dd ul { padding-left: 1.25rem; }
@media (min-width: 62rem) {
  .columns { display: grid; grid-template-columns: 16rem minmax(0, 1fr); gap: 2.5rem; }
  nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; padding-bottom: 2rem; }
}
@media (max-width: 30rem) {
  header { padding-top: 1.5rem; }
  h1 { font-size: 1.6rem; }
  article { margin-left: -0.5rem; margin-right: -0.5rem; padding: 1rem 0.75rem; }
}
@media print { nav, .skip { display: none; } article { break-inside: avoid-page; } }
"""
