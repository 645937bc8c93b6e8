"""All texts of the screen in its languages: our own words, and the names of citizenships as CLDR has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from babel import Locale
from babel.core import get_global

from schemas.vocabulary import CITIZENSHIPS

Language = Literal["en", "sl", "hr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

Text: TypeAlias = "str | dict[str, str]"
"""One text, or one for each plural form of the language; `{name}` in it is to be filled in."""

_OWN_NAMES: Final = ("XXA", "XXB", "XXC", "XXX", "RKS")  # codes of travel documents that no territory has


class WordsError(LookupError):
    """A text is missing in a catalogue, or has the wrong plural forms; `key` and `language` say which."""

    def __init__(self, language: str, key: str, what: str) -> None:
        super().__init__(f"words/{language}.json, `{key}`: {what}")
        self.language, self.key = language, key


class Words:
    """The texts of one language."""

    def __init__(self, language: Language, texts: Mapping[str, Text]) -> None:
        self.language = language
        self.texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values filled in; WordsError if there is no such text, or it has plural forms."""
        text = self.texts.get(key)
        if not isinstance(text, str):
            raise WordsError(self.language, key, "no such text" if text is None else "has plural forms")
        return text.format(**values) if values else text


@cache
def words(language: Language) -> Words:
    """Return a language's texts; WordsError unless they have the same keys as the English ones, in all plural forms."""
    texts, model = _read(language), _read("en")
    plurals = {*Locale(language).plural_form.tags, "other"}
    for key in texts.keys() | model.keys():
        if key not in texts or key not in model:
            raise WordsError(language, key, "this key is not in every language")
        text, like = texts[key], model[key]
        if isinstance(text, str) != isinstance(like, str):
            raise WordsError(language, key, "has plural forms in one language only")
        if isinstance(text, dict) and text.keys() != plurals:
            raise WordsError(language, key, f"needs the plural forms {', '.join(sorted(plurals))}")
    return Words(language, texts)


@cache
def citizenship_names(language: Language) -> dict[str, str]:
    """Return the name of every code that an event may carry."""
    own, territories = words(language), Locale(language).territories
    aliases = get_global("territory_aliases")  # CLDR's, alpha-3 to alpha-2 among them
    return {
        code: own(f"citizenship.{code}") if code in _OWN_NAMES else territories[aliases[code][0]]
        for code in sorted(CITIZENSHIPS)
    }


@cache
def words_json(language: Language) -> bytes:
    """Return what the page's script needs to speak a language: its texts, and the names of citizenships."""
    whole = {"language": language, "texts": words(language).texts, "citizenships": citizenship_names(language)}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def _read(language: Language) -> dict[str, Text]:
    path = Path(__file__).parent / "words" / f"{language}.json"
    texts: dict[str, Text] = json.loads(path.read_text(encoding="utf-8"))
    return texts
