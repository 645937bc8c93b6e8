"""The counting rules a second time, as SQL: written from DESIGN section 3, and sharing nothing with the fold.

Every function returns the text of a query. The tables they name are made by `engine`: for each side `counted_SI`, its
readable events of its own side, each with its local `day`; `versions_SI`, position, key and revision of those whose key
stands in the log more than once; `days_SI`, how the side's zone turns a time into a day.
"""

from __future__ import annotations

from typing import Final

from schemas.vocabulary import Position, Side, order

DAY_US: Final = 86_400_000_000
YEAR_ONE_US: Final = 62_135_596_800_000_000
"""From the first day of the year 1 to 1970: added to a time, so that no division meets a number below zero."""

UTC_DAY: Final = f"(epoch_us(time) + {YEAR_ONE_US}) // {DAY_US}"
LOCAL_DAY: Final = (
    f"DATE '0001-01-01' + ((epoch_us(time) + {YEAR_ONE_US} "
    f"+ CASE WHEN epoch_us(time) < changes THEN before ELSE after END) // {DAY_US})::INTEGER"
)
"""The local calendar day, from a row of `days_SI`: the zone's offset on this UTC day before and after it changes."""

KEY: Final = "coalesce(amends, id)"


def events_of(side: Side) -> str:
    """Return the events that the side's log may count: readable, and of this side."""
    return (
        f"SELECT log.*, {LOCAL_DAY} AS day FROM internal.log_{side} AS log "
        f"JOIN internal.days_{side} ON utc_day = {UTC_DAY} WHERE fault IS NULL AND side = '{side}'"
    )


def versions(side: Side) -> str:
    """Return position, key and revision of what may count and shares its key with others (`again_SI` has the hashes)."""
    return (
        f"SELECT ms, seq, {KEY} AS key, revision FROM internal.log_{side} SEMI JOIN internal.again_{side} "
        f"ON hash({KEY}) = again WHERE fault IS NULL AND side = '{side}'"
    )


def replaced(side: Side, stop: Position | None = None) -> str:
    """Return the positions that do not count: of one key the highest revision does, and of two equal ones the first."""
    return (
        "SELECT ms, seq FROM (SELECT ms, seq, "
        "row_number() OVER (PARTITION BY key ORDER BY revision DESC, ms, seq) AS place "
        f"FROM internal.versions_{side} WHERE {until(stop)}) WHERE place > 1"
    )


def in_force(side: Side, stop: Position | None = None) -> str:
    """Return the events in force at a position, or at the end."""
    without = f"internal.replaced_{side}" if stop is None else f"({replaced(side, stop)})"
    return f"SELECT * FROM internal.counted_{side} ANTI JOIN {without} USING (ms, seq) WHERE {until(stop)}"


def cells(side: Side, stop: Position | None = None) -> str:
    """Return the cells with their counts: operation, section, day, measure, citizenship, count."""
    # One line for each column of counts, so that no scan reads a column that it does not need.
    rows = " UNION ALL ".join(
        (
            _incidents("apprehension", "apprehensions"),
            _listed("apprehension", "persons"),
            _incidents("smuggler-arrest", "smuggling_cases", "opens_case"),
            _listed("smuggler-arrest", "smugglers"),
            _listed("smuggler-arrest", "smuggled_persons"),
            _listed("custody", "remanded", section="''"),
            _incidents("nil-report", "nil_reports"),
            _BALANCES,
        )
    )
    return f"WITH in_force AS NOT MATERIALIZED ({in_force(side, stop)}), parts AS ({rows}) {_SUM}"


def until(stop: Position | None) -> str:
    """Return the condition that an entry lies at or before a position."""
    if stop is None:
        return "true"
    ms, seq = order(stop)
    return f"(ms < {ms}::UBIGINT OR (ms = {ms}::UBIGINT AND seq <= {seq}::UBIGINT))"


# An opening balance may add to a cell that reports add to as well.
_SUM: Final = (
    "SELECT operation, section, day, measure, citizenship, sum(count)::BIGINT AS count FROM parts GROUP BY ALL "
    "HAVING sum(count) <> 0"
)
_BALANCES: Final = (
    "SELECT operation, total.section, day, total.measure, total.citizenship, sum(total.count) AS count FROM "
    "(SELECT operation, period_to AS day, unnest(totals) AS total FROM in_force WHERE type = 'opening-balance') "
    "GROUP BY ALL"
)


def _incidents(kind: str, measure: str, condition: str = "true") -> str:
    return (
        f"SELECT operation, section, day, '{measure}' AS measure, '' AS citizenship, count(*) AS count "
        f"FROM in_force WHERE type = '{kind}' AND {condition} GROUP BY ALL"
    )


def _listed(kind: str, measure: str, section: str = "section") -> str:
    return (
        f"SELECT operation, section, day, '{measure}' AS measure, part.citizenship, sum(part.count) AS count "
        f"FROM (SELECT operation, {section} AS section, day, unnest({measure}) AS part FROM in_force "
        f"WHERE type = '{kind}') GROUP BY ALL"
    )
