"""The claims file: published figures, with the words they were published in, for an audit to hold against the log."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from schemas.vocabulary import Measure

Relation = Literal["equals", "more_than", "at_least", "less_than", "at_most"]
RELATIONS: Final[tuple[Relation, ...]] = ("equals", "more_than", "at_least", "less_than", "at_most")

Figure = Annotated[int, Meta(ge=0)]


class Claim(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One published figure: exactly one of the relations, over the cells that `where` and the period select.

    A list in `where` means any of its values. A breakdown gives the parts by the members of one dimension.
    """

    text: Annotated[str, Meta(min_length=1)]
    measure: Measure
    where: dict[str, str | tuple[str, ...]] = {}
    first_day: date | None = field(default=None, name="from")
    last_day: date | None = field(default=None, name="to")
    equals: Figure | None = None
    more_than: Figure | None = None
    at_least: Figure | None = None
    less_than: Figure | None = None
    at_most: Figure | None = None
    breakdown: dict[str, dict[str, Figure]] = {}

    def __post_init__(self) -> None:
        given = [relation for relation in RELATIONS if getattr(self, relation) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a claim has exactly one of {', '.join(RELATIONS)}; this has {', '.join(given) or 'none'}"
            )
        if len(self.breakdown) > 1:
            raise ValueError("`breakdown` is by one dimension")
        if not all(self.breakdown.values()):
            raise ValueError("`breakdown` has no member; leave it out, or give one")
        if any("" in members for members in self.breakdown.values()):
            raise ValueError("a member of `breakdown` has no name; the empty one stands for the total")
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise ValueError("`from` lies after `to`")
        if "measure" in self.where or "measure" in self.breakdown:
            raise ValueError("the measure is named by `measure`, not in `where` or `breakdown`")

    @property
    def relation(self) -> Relation:
        """How the published figure and the counted one are to relate."""
        return next(relation for relation in RELATIONS if getattr(self, relation) is not None)

    @property
    def published(self) -> int:
        """The published figure."""
        figure: int = getattr(self, self.relation)
        return figure


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A publication: its title, day and source, and what it claims."""

    title: str
    published: date
    source: str
    claims: Annotated[tuple[Claim, ...], Meta(min_length=1)] = field(name="claim")


def decode_claims(text: bytes) -> Claims:
    """Read a claims file; ValueError says what is wrong and where."""
    file = msgspec.toml.decode(text)
    found = file.get("claim")
    for number, claim in enumerate(found if isinstance(found, list) else ()):
        if isinstance(claim, dict) and isinstance(where := claim.get("where"), dict):
            claim["where"] = {
                name: _text_of(name, value, f"`$.claim[{number}].where.{name}`") for name, value in where.items()
            }
    return msgspec.convert(file, Claims, builtin_types=(datetime, date, time), str_keys=True)


def _text_of(name: str, value: Any, place: str) -> str | list[str]:
    """Return a value of `where` as text: a number may stand for a year, and a date of TOML for a day."""
    match value:
        case list():
            if not any(isinstance(one, list) for one in value):
                return [str(_text_of(name, one, place)) for one in value]
        case str():
            return value
        case int() if name == "year" and not isinstance(value, bool):
            return str(value)
        case date() if name == "day" and not isinstance(value, datetime):
            return value.isoformat()
    likes = {"year": '2024 or "2024"', "day": '2024-02-29 or "2024-02-29"', "month": '"2024-02"'}
    like = likes.get(name, "a text in quotes")
    raise ValueError(f"{name} is written as {like}, or as a list of such, not as {_shown(value)} - at {place}")


def _shown(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number with a point", datetime: "a date with a time",
             date: "a date without quotes", time: "a time", list: "lists in a list", dict: "a table"}  # fmt: skip
    return kinds[type(value)]
