"""Two countings of one log agree in everything: the fold, whatever its batches, and the oracle."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given as examples
from hypothesis import settings

from services.tally.digest import state_digest
from tests import given, oracle
from tests.given import Folded

SEEDS = (1, 2, 20240313)
REPORTS = 600
BATCHES = (1, 7, 1_000_000)


@lru_cache
def log(seed: int, side: str) -> list[given.Fields]:
    return given.seeded_log(seed, REPORTS)[side]


@lru_cache
def judged(seed: int, side: str) -> oracle.Counted:
    return counted(log(seed, side), side)


def counted(entries: list[given.Fields], side: str) -> oracle.Counted:
    return oracle.count(
        side, given.ZONES[side].key, ((f"{number}-0", fields) for number, fields in enumerate(entries, 1))
    )


def folded(entries: list[given.Fields], side: str, batch: int) -> Folded:
    partition = Folded(side=side)
    for start in range(0, len(entries), batch):
        partition.take_entries(entries[start : start + batch])
    return partition


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("side", given.ZONES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_fold_counts_a_seeded_log_as_the_oracle_does(seed: int, side: str, batch: int) -> None:
    expected, partition = judged(seed, side), folded(log(seed, side), side, batch)

    assert expected.tallies == partition.tallies
    assert expected.outcomes == partition.outcomes
    assert expected.parked == {position: parked.reason for position, parked in partition.parked.items()}
    assert oracle.digest(expected.tallies) == state_digest(partition.state.tallies)


@pytest.mark.parametrize("side", given.ZONES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_outcome_occurs_in_a_seeded_log(seed: int, side: str) -> None:
    assert set(oracle.OUTCOMES) == set(judged(seed, side).outcomes)


@pytest.mark.parametrize("side", given.ZONES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seeded_log_misses_numbers_and_has_every_measure(seed: int, side: str) -> None:
    partition = folded(log(seed, side), side, REPORTS)

    assert any(missing for _, missing in partition.numbers.values())
    assert set(given.MEASURES) == {cell.split("|")[4] for cell in partition.tallies}
    assert partition.plans


def test_equal_seeds_give_equal_logs_and_others_do_not() -> None:
    assert given.seeded_log(3, 50) == given.seeded_log(3, 50)
    assert given.seeded_log(3, 50) != given.seeded_log(4, 50)


def test_a_seeded_log_can_be_written_to_a_server() -> None:
    """Which takes no entry without a field."""
    assert all(given.seeded_log(1, 0).values())
    assert all(fields for seed in SEEDS for side in given.ZONES for fields in log(seed, side))


@examples(given.logs("SI"))
@settings(max_examples=200)
def test_the_fold_counts_any_log_as_the_oracle_does(entries: list[given.Fields]) -> None:
    expected, partition = counted(entries, "SI"), folded(entries, "SI", 5)

    assert expected.tallies == partition.tallies
    assert expected.outcomes == partition.outcomes
    assert expected.parked == {position: parked.reason for position, parked in partition.parked.items()}


@examples(given.documents("HR"))
def test_the_fold_reads_any_event_as_the_oracle_does(document: given.Document) -> None:
    for raw in (given.as_json(document), given.canonical(document)):
        entries = [given.entry(raw)]

        assert counted(entries, "HR").tallies == folded(entries, "HR", 1).tallies
