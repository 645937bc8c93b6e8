"""Exports: the rows of what is shown, each with where it is true."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import Any

import pytest

from schemas.events import SectionPlan
from schemas.screen import Hours, OperationShown, SideShown, Snapshot
from schemas.vocabulary import Position, Side
from services.control_room.export import BY, Filters, as_csv, export, name_of
from tests import given

OPERATION = given.OPERATION


def side(name: str, cells: dict[str, int], position: str) -> SideShown:
    plan = (SectionPlan(section="koper", area="Koper", coverage="joint"),)
    return SideShown(
        side=Side(name), zone="UTC", citizenship={"SI": "SVN", "HR": "HRV"}[name], position=Position(position),
        entries=1, generation="g1", digest="d" * 64, lag=0, lag_s=0.0, heard=None, parked=0,
        operations=(OperationShown(OPERATION, "n", date(2024, 3, 13), date(2024, 3, 15), None, plan),), cells=cells,
        devices=(), hours=Hours(0, {}), latest=(), amendments=(), amended={}, audit=None,
    )  # fmt: skip


SNAPSHOT = Snapshot(
    view="live",
    now=datetime(2024, 3, 16, tzinfo=UTC),
    id="SI:5-0,HR:7-0",
    digest="e" * 64,
    fold_version=1,
    sides=(
        side(
            "SI",
            {
                f"SI|{OPERATION}|koper|2024-03-14|persons|SYR": 4,
                f"SI|{OPERATION}|koper|2024-03-15|persons|AFG": 3,
                "SI|||2024-03-16|remanded|UKR": 2,
            },
            "5-0",
        ),
        side("HR", {f"HR|{OPERATION}|rupa|2024-03-15|persons|SYR": 1}, "7-0"),
    ),
)


def rows(**filters: Any) -> list[tuple[str, str, str, int]]:
    found = export(SNAPSHOT, Filters(**filters)).rows
    return [(str(row["side"]), str(row["day"]), str(row["citizenship"]), int(row["count"])) for row in found]


@pytest.mark.parametrize(
    ("filters", "counts"),
    [
        ({}, [1, 2, 3, 4]),
        ({"side": "SI"}, [2, 3, 4]),
        ({"operation": OPERATION}, [1, 3, 4]),
        ({"operation": OPERATION, "side": "HR"}, [1]),
        ({"first": date(2024, 3, 15)}, [1, 2, 3]),
        ({"last": date(2024, 3, 15)}, [1, 3, 4]),
        ({"first": date(2024, 3, 15), "last": date(2024, 3, 15)}, [1, 3]),
        ({"first": date(2024, 3, 16), "last": date(2024, 3, 15)}, []),
        ({"operation": "none"}, []),
    ],
)
def test_the_filters_of_the_view_choose_the_rows(filters: dict[str, Any], counts: list[int]) -> None:
    assert counts == sorted(count for *_, count in rows(**filters))


def test_a_row_has_every_dimension_and_coverage_is_of_the_operations_plan() -> None:
    coverage = {(row["side"], row["section"]): row["coverage"] for row in export(SNAPSHOT, Filters()).rows}

    assert "joint" == coverage["SI", "koper"]
    assert coverage["HR", "rupa"] != "joint"
    assert all([*BY, "count"] == list(row) for row in export(SNAPSHOT, Filters()).rows)


def test_an_export_says_where_it_is_true() -> None:
    for side, position, digest in ((None, {"SI": "5-0", "HR": "7-0"}, "e"), ("SI", {"SI": "5-0"}, "d")):
        exported = export(SNAPSHOT, Filters(side=side))
        assert (position, digest * 64, 1, "live") == (
            exported.position, exported.digest, exported.fold_version, exported.view,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        (Filters(), "fieldtally-all-7-0"),
        (Filters(operation="SI-HR-2024-03"), "fieldtally-SI-HR-2024-03-7-0"),
        (Filters(side="SI"), "fieldtally-all-SI-5-0"),
        (Filters("A/1", "HR", date(2024, 3, 13), date(2024, 3, 15)), "fieldtally-A_1-HR-2024-03-13-2024-03-15-7-0"),
        (Filters(operation='x"\r\nč;=' + "x" * 500), "fieldtally-x______" + "x" * 182),
    ],
)
def test_a_file_is_called_after_its_view_and_position(filters: Filters, name: str) -> None:
    assert name == name_of(export(SNAPSHOT, filters), filters)


def test_each_row_of_a_csv_has_its_sides_position_and_the_digest() -> None:
    text = as_csv(export(SNAPSHOT, Filters())).decode()
    assert "\r\n" in text
    read = list(csv.DictReader(io.StringIO(text)))

    assert {("SI", "5-0"), ("HR", "7-0")} == {(row["side"], row["position"]) for row in read}
    assert {"e" * 64} == {row["digest"] for row in read}
    assert {"1", "2", "3", "4"} == {row["count"] for row in read}


def test_a_csv_says_where_each_side_stands_of_which_it_has_no_rows() -> None:
    """Else nobody could tell at which positions the digest is true, nor nothing counted from nothing known."""
    text = as_csv(export(SNAPSHOT, Filters(first=date(2024, 3, 16), last=date(2024, 3, 15)))).decode()
    head = [*BY, "count", "position", "digest"]

    assert [head, *([side, *[""] * 6, "0", at, "e" * 64] for side, at in (("SI", "5-0"), ("HR", "7-0")))] == list(
        csv.reader(io.StringIO(text))
    )
    of_one_side = list(csv.DictReader(io.StringIO(as_csv(export(SNAPSHOT, Filters(side="SI"))).decode())))
    assert {"SI"} == {row["side"] for row in of_one_side}
