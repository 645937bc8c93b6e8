"""An opening balance counts whole on its last day: a figure of some of its days says that it includes the others."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from schemas.vocabulary import Side
from services.tally.balances import Balance, cut_balances
from services.tally.rollup import Selection, Terms

SI = Side("SI")
TERMS = Terms({SI: "SVN"}, {})
YEAR = (date(2022, 1, 1), date(2022, 12, 31))
SAID = "includes an opening balance of SI for 2022-01-01 to 2022-12-31, which counts whole on its last day"


def balance(first: date, last: date, citizenship: str = "MAR") -> Balance:
    return Balance(SI, first, last, {("SI", "", "", last.isoformat(), "persons", citizenship): 653})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, []),
        ({"first_day": date(2022, 1, 1)}, []),
        ({"first_day": date(2022, 1, 2)}, [SAID]),
        ({"first_day": date(2022, 7, 1), "last_day": date(2022, 12, 31)}, [SAID]),
        ({"last_day": date(2022, 12, 30)}, []),  # it is not in there at all
        ({"where": {"year": ("2022",)}}, []),
        ({"where": {"month": ("2022-12",)}}, [SAID]),
        ({"where": {"month": ("2022-11",)}}, []),
        ({"where": {"day": ("2022-12-31",)}}, [SAID]),
        ({"where": {"citizenship": ("SYR",)}, "first_day": date(2022, 7, 1)}, []),
        ({"where": {"measure": ("smugglers",)}, "first_day": date(2022, 7, 1)}, []),
        ({"by": ("month", "measure")}, [SAID]),
        ({"by": ("year", "measure")}, []),
        ({"by": ("day",), "where": {"measure": ("persons",)}}, [SAID]),
    ],
)
def test_it_is_said_where_a_figure_has_some_of_its_days_and_the_last(asked: dict[str, Any], said: list[str]) -> None:
    assert said == cut_balances([balance(*YEAR)], Selection(**asked), TERMS)


def test_one_of_a_single_month_lies_in_its_month() -> None:
    within = balance(date(2022, 12, 1), date(2022, 12, 31))
    assert [] == cut_balances([within], Selection(by=("month", "measure")), TERMS)


def test_equal_periods_are_said_once_and_many_are_counted() -> None:
    first = date(2022, 1, 1)
    many = [balance(first, first + timedelta(days=number)) for number in range(1, 10)]
    texts = cut_balances(many * 2, Selection(first_day=date(2022, 1, 2)), TERMS)
    assert 4 == len(texts)
    assert "and 6 more opening balances like that" == texts[-1]


days = st.dates(date(2021, 12, 1), date(2022, 3, 1))


@for_all(
    first=days, length=st.integers(0, 40), asked_first=days, asked_last=days, month=st.sampled_from(["", "2022-01"])
)
def test_it_is_said_exactly_if_the_last_day_counts_and_another_does_not(
    first: date, length: int, asked_first: date, asked_last: date, month: str
) -> None:
    period = [first + timedelta(days=number) for number in range(length + 1)]
    selection = Selection(where={"month": (month,)} if month else {}, first_day=asked_first, last_day=asked_last)

    def counts(day: date) -> bool:
        return asked_first <= day <= asked_last and day.isoformat().startswith(month)

    said = cut_balances([balance(period[0], period[-1])], selection, TERMS)
    assert bool(said) == (counts(period[-1]) and not all(map(counts, period)))
