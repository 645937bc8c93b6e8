"""The closed vocabularies are those of the standards they come from."""

from __future__ import annotations

from typing import get_args

import pycountry
import pytest

from schemas.vocabulary import CITIZENSHIPS, UNITS, Citizenship, Measure, is_name, order, parse_source
from tests import oracle

ICAO_9303 = {"XXA", "XXB", "XXC", "XXX"}
KOSOVO = {"RKS"}
STANDARD = {country.alpha_3 for country in pycountry.countries} | ICAO_9303 | KOSOVO


def test_citizenships_are_iso_3166_alpha_3_and_the_five_of_travel_documents() -> None:
    assert set(CITIZENSHIPS) == STANDARD


def test_no_citizenship_stands_there_twice() -> None:
    assert len(STANDARD) == len(get_args(Citizenship))


def test_the_oracle_knows_the_same_citizenships() -> None:
    assert STANDARD == oracle.CITIZENSHIPS


def test_each_measure_has_a_unit() -> None:
    assert get_args(Measure) == tuple(UNITS)
    assert set(UNITS) == oracle.MEASURES


@pytest.mark.parametrize("text", ["a", "koper", "SI-HR-2024-03", "K/2024.1_a", "x" * 64])
def test_a_name_is_of_letters_digits_and_four_signs(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a|b", "a=b", "koper\n", "\nkoper", "Črnomelj", "x" * 65, "a\x00"])
def test_nothing_else_is_a_name(text: str) -> None:
    assert not is_name(text)


def test_a_source_is_split_into_side_unit_and_device() -> None:
    assert parse_source("/SI/SI-MP-07/9f3c2a") == ("SI", "SI-MP-07", "9f3c2a")


def test_positions_sort_by_number_not_as_text() -> None:
    assert sorted(["10-10", "2-0", "10-2"], key=order) == ["2-0", "10-2", "10-10"]
