"""The HTML of the screen and of its log-in page: everything that stands on it before the script fills in the numbers.

No inline script or style: both pages are served under `default-src 'none'; script-src 'self'; style-src 'self'`.
Until the script speaks, the page says that it is not connected; it can never look live by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from html import escape
from typing import Final, NamedTuple
from urllib.parse import urlencode

from services.control_room.words import LANGUAGES, Language, Words, words

MEASURES: Final = ("persons", "smugglers", "smuggling_cases", "smuggled_persons", "remanded")
"""The big numbers, in their order on the screen."""

FIRST_DAY: Final = date(1970, 1, 2)
LAST_DAY: Final = date(9998, 12, 30)
"""What may be asked for: in every zone these days have all their hours. `clock.js` has the same."""

THEMES: Final = ("auto", "dark", "light")
_LIST: Final = '<div class="scroll" tabindex="0"><table><thead></thead><tbody></tbody></table></div>'
_SCRIPTS: Final = ("charts.js", "clock.js", "dom.js", "figures.js", "lists.js", "stream.js", "tallies.js", "words.js")


class View(NamedTuple):
    """What the address says, without the language; the empty string is "all". `first` and `last` are ISO dates."""

    operation: str = ""
    side: str = ""
    first: str = ""
    last: str = ""
    theme: str = "auto"
    kiosk: bool = False
    at: str = ""

    def query(self, language: str) -> str:
        """Return the address of this view, from its `?` on."""
        named = {
            "operation": self.operation,
            "side": self.side,
            "from": self.first,
            "to": self.last,
            "at": self.at,
            "theme": self.theme if self.theme != "auto" else "",
            "kiosk": "1" if self.kiosk else "",
            "lang": language,
        }
        return f"?{urlencode({name: value for name, value in named.items() if value})}"


def page(language: Language, view: View, snapshot_json: str, assets: Mapping[str, str]) -> str:
    """Return the screen. `assets` has the address of each static file by its name.

    The script's modules name each other without a version: they have to be served at `/static/NAME` too.
    """
    say = words(language)
    snapshot = snapshot_json.replace("<", "\\u003c")
    modules = "".join(f'<link rel="modulepreload" href="{_bare(assets[name])}">' for name in _SCRIPTS)
    words_at = escape(assets[f"words.{language}.json"])
    head = (
        f'{modules}<link rel="preload" as="fetch" crossorigin href="{words_at}">'
        f'<script type="module" src="{_bare(assets["wall.js"])}"></script>'
    )
    kiosk = " kiosk" if view.kiosk else ""
    body = [
        f'<body class="wall{kiosk}" data-state="{"past" if view.at else "connecting"}" data-words="{words_at}">',
        f'<a class="skip" href="#figures">{_e(say("skip"))}</a>',
        _way_out(say, view),
        _header(say, view),
        _menu(say, view),
        _banners(say, view),
        "<main>",
        _figures(say),
        _panels(say),
        "</main>",
        _foot(say, view),
        _reasons(say),
        f'<script type="application/json" id="snapshot">{snapshot}</script>',
        "</body></html>\n",
    ]
    return _top(say, view.theme, say("title"), assets, head) + "\n".join(body)


def login_page(
    language: Language,
    onward: str,
    *,
    wrong: bool,
    assets: Mapping[str, str],
    theme: str = "auto",
    why: str = "login.wrong",
) -> str:
    """Return the page that asks for a token; a log-in leads `onward`.

    `wrong` says that a token was refused, `why` is the key of the words that say what is wrong with it.
    """
    say = words(language)
    refused = f'<p id="wrong" class="wrong" role="alert">✕ {_e(say(why))}</p>' if wrong else ""
    described = ' aria-invalid="true" aria-describedby="wrong"' if wrong else ""
    return _top(say, theme, say("login.title"), assets, "") + (
        f'<body class="login"><main><h1>{_e(say("login.title"))}</h1>{refused}'
        f'<form method="post" action="/login"><input type="hidden" name="next" value="{_e(onward)}">'
        f'<label>{_e(say("login.token"))} <input name="token" type="password" autocomplete="current-password" '
        f"required autofocus{described}></label><button>{_e(say('login.button'))}</button></form>"
        f'<p class="quiet">{_e(say("login.help"))}</p></main></body></html>\n'
    )


def trouble_page(
    language: Language, view: View, assets: Mapping[str, str], *, title: str, text: str, again_s: int = 0
) -> str:
    """Return what stands in the place of the screen when there is none, with `title` (a key of the words) and a text.

    A wall PC that boots before the store is up asks again by itself, every `again_s` seconds; 0 for what no waiting
    mends, from which a link leads to the live view.
    """
    say = words(language)
    said = f'<p class="wrong" role="alert">✕ {_e(text)}</p>' if text else ""
    waiting = f'<p class="quiet">{_e(say("again", n=again_s))}</p>' if again_s else ""
    onward = (view if again_s else view._replace(at="")).query(language)
    refresh = f'<meta http-equiv="refresh" content="{again_s};url=/{_e(onward)}">' if again_s else ""
    link = f'<p><a href="/{_e(onward)}">{_e(say("again.now" if again_s else "past.live"))}</a></p>'
    return _top(say, view.theme, say(title), assets, refresh) + (
        f'<body class="login"><main><h1>{_e(say(title))}</h1>{said}{waiting}{link}</main></body></html>\n'
    )


# --- the parts of the page ---


def _top(say: Words, theme: str, title: str, assets: Mapping[str, str], head: str) -> str:
    return (
        f'<!doctype html>\n<html lang="{say.language}" data-theme="{_e(theme)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{_e(title)} · Fieldtally</title>'
        f'<link rel="icon" href="{_e(assets["icon.svg"])}">'
        f'<link rel="stylesheet" href="{_e(assets["wall.css"])}">{head}</head>\n'
    )


def _header(say: Words, view: View) -> str:
    return (
        f'<header><h1><span id="operation">{_e(view.operation or say("operation.all"))}</span> '
        '<span id="day" class="quiet"></span></h1>'
        f'<p id="health"><strong id="state">◌ {_e(say("state.past" if view.at else "state.connecting"))}</strong> '
        '<span id="age"></span> <span id="lag"></span></p><p id="asof"></p>'
        f'<button id="more" type="button" popovertarget="menu" aria-label="{_e(say("menu"))}">☰</button></header>'
    )


def _way_out(say: Words, view: View) -> str:
    """Return the link out of a wall's view; it is seen once somebody moves the mouse or reaches it by the keyboard."""
    if not view.kiosk:
        return ""
    desk = _e(view._replace(kiosk=False).query(say.language))
    link = f'<a id="leave" href="{desk}" data-set="kiosk=">{_e(say("kiosk.leave"))}</a>'
    return f'<nav aria-label="{_e(say("kiosk"))}">{link}</nav>'


def _menu(say: Words, view: View) -> str:
    """Return what one may do: a bar on a desk, behind a button on a phone, nothing on a wall."""
    languages = "".join(
        _choice(name, {"lang": name}, view.query(name), current=name == say.language, title=words(name)("language"))
        for name in LANGUAGES
    )
    themes = "".join(
        _choice(
            say(f"theme.{name}"),
            {"theme": name},
            view._replace(theme=name).query(say.language),
            current=view.theme == name,
        )
        for name in THEMES
    )
    wall = _choice(say("kiosk"), {"kiosk": "1"}, view._replace(kiosk=True).query(say.language), current=False)
    return (
        f'<div id="menu" popover>{_filters(say, view)}'
        f'<div class="controls"><button id="freeze" type="button" aria-pressed="false">{_e(say("freeze"))}</button>'
        f'<nav aria-label="{_e(say("languages"))}">{languages}</nav>'
        f'<nav aria-label="{_e(say("theme"))}">{themes}{wall}</nav>'
        f'<form method="post" action="/logout"><button>{_e(say("logout"))}</button></form></div></div>'
    )


def _choice(text: str, sets: Mapping[str, str], address: str, *, current: bool, title: str = "") -> str:
    """Return a link that changes one thing of the view; the script keeps the rest of its address current."""
    (name, value), marked = next(iter(sets.items())), ' aria-current="true"' if current else ""
    spoken = f' lang="{_e(value)}" hreflang="{_e(value)}" title="{_e(title)}" aria-label="{_e(title)}"' if title else ""
    shown = _e(text.upper() if title else text)
    return f'<a href="{_e(address)}" data-set="{_e(name)}={_e(value)}"{marked}{spoken}>{shown}</a>'


def _banners(say: Words, view: View) -> str:
    live = view._replace(at="").query(say.language)
    past = (
        f'<p class="past"><span>◷ {_e(say("past.band", position=view.at))}</span> '
        f'<a href="{_e(live)}" data-set="at=">{_e(say("past.live"))}</a></p>'
        if view.at
        else ""
    )
    return (
        f'<section id="banners" aria-label="{_e(say("health"))}">{past}<div id="loss" role="alert"></div>'
        '<div id="delay"></div><p id="notice"></p><p id="amiss" role="status"></p>'
        '<div id="frozen" hidden><strong></strong> <span></span> '
        f'<button id="resume" type="button">{_e(say("resume"))}</button></div></section>'
        '<p id="spoken" class="unseen" role="status"></p>'
        f'<noscript><p class="past">{_e(say("noscript"))}</p></noscript>'
    )


def _filters(say: Words, view: View) -> str:
    """Return a form that works by the address alone; with the script it works without a reload."""
    hint = ' placeholder="2024-03-14 12:00" size="24" spellcheck="false" autocomplete="off"'
    days = f' min="{FIRST_DAY}" max="{LAST_DAY}"'
    hidden = {"lang": say.language, "theme": view.theme, "kiosk": "1" if view.kiosk else ""}
    fields = [
        _select(say, "operation", view.operation),
        _select(say, "side", view.side),
        _input(say, "from", _iso(view.first), "date", days),
        _input(say, "to", _iso(view.last), "date", days),
        _input(say, "at", view.at, "text", hint),
        *(f'<input type="hidden" name="{name}" value="{_e(value)}">' for name, value in hidden.items() if value),
    ]
    return (
        f'<form id="filters" method="get" action="/" role="search" aria-label="{_e(say("filter"))}">'
        f"{''.join(fields)}<button>{_e(say('filter.apply'))}</button></form>"
    )


def _select(say: Words, name: str, value: str) -> str:
    """Return a choice that knows what is chosen; the script adds the rest."""
    option = f'<option selected value="{_e(value)}">{_e(value)}</option>' if value else ""
    everything = f'<option value="">{_e(say(f"{name}.all"))}</option>'
    return f'<label>{_e(say(f"filter.{name}"))} <select name="{name}">{everything}{option}</select></label>'


def _input(say: Words, name: str, value: str, kind: str, more: str = "") -> str:
    return f'<label>{_e(say(f"filter.{name}"))} <input type="{kind}" name="{name}" value="{_e(value)}"{more}></label>'


def _figures(say: Words) -> str:
    rows = "".join(
        f'<tr data-measure="{measure}"><th scope="row">{_e(say(f"measure.{measure}"))}</th>'
        '<td data-side=""><span class="figure"><b>–</b></span></td></tr>'
        for measure in MEASURES
    )
    return (
        f'<table id="figures"><thead><tr><th scope="col"><span class="unseen">{_e(say("measure"))}</span></th>'
        f'<th scope="col">{_e(say("total"))}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _panels(say: Words) -> str:
    inner = {"hours": "<div></div>", "lastyear": f"{_LIST}<p></p>"}
    panels = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{_e(say(f"panel.{name}"))}</h2>{inner.get(name, _LIST)}</section>'
        for name in ("citizenship", "hours", "section", "latest", "devices", "lastyear")
    )
    return f'<div id="panels">{panels}</div>'


def _foot(say: Words, view: View) -> str:
    query = view.query(say.language)
    exports = (
        f'<a href="/api/tallies.csv{_e(query)}" data-export="/api/tallies.csv" download>CSV</a> '
        f'<a href="/api/tallies.json{_e(query)}&amp;download=1" data-export="/api/tallies.json" download>JSON</a> '
        f'<button id="print" type="button">{_e(say("print"))}</button>'
    )
    return (
        f'<footer><p id="audit"></p><p id="digest"></p><p id="caveat">{_e(say("caveat"))}</p>'
        f'<p class="controls"><span>{_e(say("export"))}:</span> {exports}</p></footer>'
    )


def _reasons(say: Words) -> str:
    return (
        f'<dialog id="reasons" aria-labelledby="reasons-title"><h2 id="reasons-title"></h2>{_LIST}<p></p>'
        f'<form method="dialog"><button>{_e(say("close"))}</button></form></dialog>'
    )


def _iso(day: str) -> str:
    """Return a day if it is one: a field for days takes nothing else."""
    try:
        return day if date.fromisoformat(day).isoformat() == day else ""
    except ValueError:
        return ""


def _bare(address: str) -> str:
    return escape(address.partition("?")[0])


def _e(value: object) -> str:
    return escape(str(value))
