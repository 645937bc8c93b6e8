"""Settings: each variable's good values are read, and a bad one is named with what is allowed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from services.runtime.errors import UsageError
from services.runtime.settings import Settings, hide_password, read_settings


def read(**variables: str) -> Settings:
    return read_settings({f"FIELDTALLY_{name}": text for name, text in variables.items()})


def refused(**variables: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(**variables)
    text = str(caught.value)
    assert 1 == len(text.splitlines())
    assert f"FIELDTALLY_{next(iter(variables))}" in text
    return text


def test_nothing_set_is_an_embedded_server_and_both_sides() -> None:
    settings = read()
    assert settings.redis_url is None
    assert [("SI", "Europe/Ljubljana", "SVN"), ("HR", "Europe/Zagreb", "HRV")] == [
        (side.side, side.zone.key, side.citizenship) for side in settings.sides
    ]
    assert ("ft", "127.0.0.1", 8080, "auto", "info") == (
        settings.prefix, settings.http_host, settings.http_port, settings.log_format, settings.log_level,
    )  # fmt: skip


def test_an_empty_variable_counts_as_unset() -> None:
    names = ("REDIS_URL", "DATA_DIR", "SIDES", "PREFIX", "HTTP_HOST", "HTTP_PORT", "LOG_FORMAT", "LOG_LEVEL")
    assert read() == read(**dict.fromkeys(names, ""))


def test_other_variables_are_left_alone() -> None:
    assert read_settings({}) == read_settings({"REDIS_URL": "nonsense", "FIELDTALLY_COLOUR": "blue", "LOG_LEVEL": "x"})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read().prefix = "other"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost", "redis://localhost:6379", "redis://localhost:6379/0", "redis://:secret@localhost:6379/3",
        "redis://desk:secret@10.0.0.7:6379/0", "redis://[::1]:6379", "rediss://redis.example:6380/0",
        "unix:///run/valkey.sock", "unix://desk:secret@/run/valkey.sock?db=1",
    ],
)  # fmt: skip
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert url == read(REDIS_URL=url).redis_url


@pytest.mark.parametrize(
    "url",
    ["localhost", "localhost:6379", "10.0.0.7:6379", "http://x", "redis://", "redis:///0", "redis://:6379",
     "redis://x:port", "redis://x:99999", "redis://x/zero", "redis://x/0/1", "redis://[::1", "unix://", "/run/s",
     "redis+cluster://x", "file:///x"],
)  # fmt: skip
def test_what_is_no_address_is_named_with_the_forms_there_are(url: str) -> None:
    text = refused(REDIS_URL=url)
    assert repr(url) in text
    for form in ("redis://HOST:PORT/0", "rediss://HOST:PORT/0", "unix:///PATH/TO/SOCKET"):
        assert form in text


def test_a_password_is_not_in_the_error() -> None:
    assert "secret" not in refused(REDIS_URL="redis://:secret@host:port")
    assert "secret" not in refused(REDIS_URL="redis://desk:secret@host/zero")


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost:6379", "redis://:***@localhost:6379"),
        ("redis://desk:secret@localhost", "redis://desk:***@localhost"),
        ("redis://desk@localhost", "redis://desk:***@localhost"),
        ("redis://desk:pass@word@localhost", "redis://desk:***@localhost"),
        ("redis://:pass/word@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("redis://localhost?password=word", "redis://localhost"),
        ("unix://desk:secret@/run/s", "unix://desk:***@/run/s"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, hidden: str) -> None:
    assert hidden == hide_password(url)


def test_the_data_folder_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/desk")
    assert Path("/home/desk/tally") == read(DATA_DIR="~/tally").data_dir
    assert Path("relative") == read(DATA_DIR="relative").data_dir


def test_without_a_data_folder_it_is_where_data_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/desk")
    assert Path("/home/desk/.local/share/fieldtally") == read_settings({}).data_dir
    assert Path("/srv/data/fieldtally") == read_settings({"XDG_DATA_HOME": "/srv/data"}).data_dir


def test_sides_are_read_in_their_order() -> None:
    settings = read(SIDES="AT:Europe/Vienna:AUT, SI:Europe/Ljubljana:SVN")
    assert ["AT", "SI"] == [side.side for side in settings.sides]
    assert "AUT" == settings.side("AT").citizenship


@pytest.mark.parametrize(
    ("text", "part", "why"),
    [
        ("nonsense", "nonsense", "not three parts"),
        ("SI", "SI", "not three parts"),
        ("SI:Europe/Ljubljana", "SI:Europe/Ljubljana", "not three parts"),
        ("SI:Europe/Ljubljana:SVN:x", "SI:Europe/Ljubljana:SVN:x", "not three parts"),
        ("SI:Europe/Ljubljana:SVN,", "SI:Europe/Ljubljana:SVN,", "a comma too many"),
        ("si:Europe/Ljubljana:SVN", "si:Europe/Ljubljana:SVN", "'si' is not a country's two capital letters"),
        ("SVN:Europe/Ljubljana:SVN", "SVN:Europe/Ljubljana:SVN", "'SVN' is not a country's"),
        ("SI:Mars/Olympus:SVN", "SI:Mars/Olympus:SVN", "'Mars/Olympus' is no IANA time zone"),
        ("SI:Europe:SVN", "SI:Europe:SVN", "'Europe' is no IANA time zone"),
        ("SI:../../etc/passwd:SVN", "SI:../../etc/passwd:SVN", "is no IANA time zone"),
        ("SI::SVN", "SI::SVN", "'' is no IANA time zone"),
        ("SI:Europe/Ljubljana:SI", "SI:Europe/Ljubljana:SI", "'SI' is not a citizenship's three letters"),
        ("SI:Europe/Ljubljana:SVN,SI:Europe/Zagreb:HRV", "SI:Europe/Zagreb:HRV", "SI stands there twice"),
    ],
)
def test_a_wrong_side_is_named_with_the_form_it_has(text: str, part: str, why: str) -> None:
    said = refused(SIDES=text)
    assert repr(part) in said
    assert why in said
    assert "CODE:ZONE:CITIZENSHIP, such as SI:Europe/Ljubljana:SVN" in said


def test_an_unknown_side_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no side 'AT': FIELDTALLY_SIDES has SI, HR"):
        read().side("AT")


@pytest.mark.parametrize("prefix", ["f", "ft", "Field-Tally_2.0", "a" * 32])
def test_a_prefix_is_taken(prefix: str) -> None:
    assert prefix == read(PREFIX=prefix).prefix


@pytest.mark.parametrize("prefix", ["a b", "{x}", "a:b", "č", "a" * 33, "a\n"])
def test_a_prefix_that_would_break_a_key_is_refused(prefix: str) -> None:
    assert "1 to 32 characters of A-Z a-z 0-9 _ . -" in refused(PREFIX=prefix)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("8080", 8080), ("65535", 65_535)])
def test_a_port_is_taken(text: str, port: int) -> None:
    assert port == read(HTTP_PORT=text).http_port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "eighty", "80.0", "８０", " 80", "1" * 40])
def test_what_is_no_port_is_refused(text: str) -> None:
    assert "a number from 1 to 65535" in refused(HTTP_PORT=text)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("LOG_FORMAT", ("auto", "console", "json")), ("LOG_LEVEL", ("debug", "info", "warning", "error"))],
)
def test_a_choice_is_read_in_any_case_and_a_wrong_one_named_with_the_others(
    name: str, allowed: tuple[str, ...]
) -> None:
    for text in allowed:
        for written in (text, text.upper(), text.title()):
            assert text == msgspec.structs.asdict(read(**{name: written}))[name.lower()]
    said = refused(**{name: "loud"})
    assert f"'loud': one of {', '.join(allowed)}" in said


def test_a_host_is_taken() -> None:
    assert "0.0.0.0" == read(HTTP_HOST="0.0.0.0").http_host  # noqa: S104  # only read, never bound
