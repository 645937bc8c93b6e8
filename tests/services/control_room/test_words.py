"""The texts: every language says everything, in all its plural forms, with the same things filled in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.vocabulary import CITIZENSHIPS
from services.control_room import words as module
from services.control_room.page import MEASURES, THEMES
from services.control_room.words import LANGUAGES, Language, Text, WordsError, citizenship_names, words, words_json
from tests import given, oracle

HOME = Path(module.__file__).parent
PLURALS = {"en": ("one", "other"), "sl": ("one", "two", "few", "other"), "hr": ("one", "few", "other")}


def forms(text: Text) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())


def filled_in(text: str) -> set[str]:
    return set(re.findall(r"\{(\w*)\}", text))


def test_there_are_three_languages() -> None:
    assert ("en", "sl", "hr") == LANGUAGES
    assert 3 == len({words(language)("language") for language in LANGUAGES})


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_everything_in_all_its_plural_forms(language: Language) -> None:
    texts, english = words(language).texts, words("en").texts
    assert set(english) == set(texts)
    for key, text in texts.items():
        assert isinstance(text, str) == isinstance(english[key], str), key
        if not isinstance(text, str):
            assert set(PLURALS[language]) == set(text), key
        for form in forms(text):
            assert form.strip() == form != "", key


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_things_are_filled_in_whatever_the_language(language: Language) -> None:
    for key, text in words(language).texts.items():
        wanted = {name for form in forms(words("en").texts[key]) for name in filled_in(form)}
        for form in forms(text):
            assert wanted == filled_in(form), key
            assert 0 == Counter(form)["{"] - Counter(form)["}"], key


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", ["login.wrong", "login.reports"])
def test_who_has_no_token_is_told_the_whole_command(language: Language, key: str) -> None:
    assert re.search(r": fieldtally devices enrol \w+ --role viewer --side SI$", words(language)(key))


def test_no_text_stands_twice_in_a_catalogue() -> None:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = Counter(name for name, _ in pairs)
        assert 1 == max(names.values()), names.most_common(1)
        return dict(pairs)

    for language in LANGUAGES:
        json.loads((HOME / "words" / f"{language}.json").read_text(encoding="utf-8"), object_pairs_hook=once)


@pytest.mark.parametrize("language", ["sl", "hr"])
def test_nothing_is_left_in_english(language: Language) -> None:
    """But for single words, which may be spelled alike, and what is all filled in."""
    same = {key: text for key, text in words(language).texts.items() if text == words("en").texts[key]}
    assert {} == {key: text for key, text in same.items() if len(re.sub(r"\{\w+\}|\W", "", str(text))) > 12}


# Citizenships


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_citizenship_has_a_name_of_its_own(language: Language) -> None:
    names = citizenship_names(language)
    assert set(CITIZENSHIPS) == set(names) == oracle.CITIZENSHIPS
    assert len(names) == len(set(names.values()))
    assert not [code for code, name in names.items() if not name.strip() or name in (code, code[:2])]


def test_citizenships_are_named_in_the_language() -> None:
    named = {code: tuple(citizenship_names(language)[code] for language in LANGUAGES) for code in ("HRV", "DEU", "SYR")}
    assert ("Croatia", "Hrvaška", "Hrvatska") == named["HRV"]
    assert ("Germany", "Nemčija", "Njemačka") == named["DEU"]
    assert ("Syria", "Sirija", "Sirija") == named["SYR"]
    for code in ("XXA", "XXB", "XXC", "XXX", "RKS"):
        assert all(len(citizenship_names(language)[code]) > 3 for language in LANGUAGES)


# What the page and its script ask for


def asked_for() -> Iterator[tuple[str, str]]:
    """Yield each key that the code names, and where."""
    for path in (HOME / "page.py", *sorted((HOME / "static").glob("*.js"))):
        text = path.read_text(encoding="utf-8")
        for key in re.findall(r"""\b(?:say|count)\(\s*["'`]([a-z][a-z._-]*)["'`]""", text):
            yield path.name, key


def test_whatever_the_code_asks_for_is_there() -> None:
    keys = list(asked_for())
    assert len(keys) > 50
    assert [] == [(where, key) for where, key in keys if key not in words("en").texts]


def test_what_is_named_by_a_code_is_there_for_every_code() -> None:
    wanted = {
        *(f"measure.{measure}" for measure in (*MEASURES, "nil_reports")),
        *(f"unit.{measure}" for measure in MEASURES),
        *(f"theme.{theme}" for theme in THEMES),
        *(f"type.{kind}" for kind in given.KINDS),
        *(f"reason.{reason}" for reason in ("duplicate", "did-not-occur", "out-of-scope", "data-entry-error")),
        *(f"coverage.{coverage}" for coverage in ("joint", "remaining")),
        "reason.correction", "trouble.server-away",
    }  # fmt: skip
    assert set() == wanted - set(words("en").texts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_script_gets_all_texts_and_names(language: Language) -> None:
    told = json.loads(words_json(language))
    assert {"language": language, "texts": words(language).texts, "citizenships": citizenship_names(language)} == told


# A catalogue that is wrong


@pytest.mark.parametrize(
    ("sl", "what"),
    [
        ({"a": "a"}, "this key is not in every language"),
        ({"a": "a", "n": {"one": "1", "two": "2", "few": "3", "other": "4"}, "more": "x"}, "this key is not in every"),
        ({"a": "a", "n": "n"}, "has plural forms in one language only"),
        ({"a": {"one": "1", "two": "2", "few": "3", "other": "4"}, "n": "n"}, "has plural forms in one language only"),
        ({"a": "a", "n": {"one": "1", "other": "2"}}, "needs the plural forms few, one, other, two"),
    ],
)
def test_a_catalogue_that_lacks_something_is_refused(monkeypatch: pytest.MonkeyPatch, sl: object, what: str) -> None:
    catalogues = {"en": {"a": "a", "n": {"one": "1", "other": "2"}}, "sl": sl}
    monkeypatch.setattr(module, "_read", catalogues.__getitem__)
    with pytest.raises(WordsError, match=what):
        words.__wrapped__("sl")


def test_a_text_that_there_is_not_is_no_text() -> None:
    say = words("en")
    with pytest.raises(WordsError, match="no such text"):
        say("none")
    with pytest.raises(WordsError, match="has plural forms"):
        say(next(key for key, text in say.texts.items() if isinstance(text, dict)))
