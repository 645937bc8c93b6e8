"""The tables that people query: what they hold, column by column, and the SQL behind them.

Of each side there are the tables that `counting` names; a view puts those of all sides together.
"""

# ruff: noqa: S608  # what is put into a query is our own text, sides and positions

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from schemas.vocabulary import UNITS, Side
from services.archive import counting


class Column(NamedTuple):
    """A column: its name, its type in DuckDB, and what it holds."""

    name: str
    type: str
    about: str


class View(NamedTuple):
    """A table for people; `of_side` is the query that gives the rows of one side."""

    name: str
    about: str
    columns: tuple[Column, ...]
    of_side: Callable[[Side], str]


def definitions(sides: Sequence[Side]) -> dict[str, str]:
    """Return the SQL of every view over these sides, in an order in which they can be made."""
    return {view.name: " UNION ALL ".join(view.of_side(side) for side in sides) for view in VIEWS}


def documentation() -> str:
    """Return all tables and columns as Markdown."""
    parts = []
    for view in VIEWS:
        lines = [f"### {view.name}", "", view.about, "", "| column | type | what |", "| --- | --- | --- |"]
        lines += [f"| `{column.name}` | {column.type} | {column.about} |" for column in view.columns]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


_COUNTS: Final = "STRUCT(measure VARCHAR, citizenship VARCHAR, count BIGINT)[]"
_TOTALS: Final = "STRUCT(measure VARCHAR, section VARCHAR, citizenship VARCHAR, count BIGINT)[]"
_LAST_MS: Final = 253_402_300_799_999  # in the year 9999: a direct write may give a position beyond every date
_POSITION: Final = "ms || '-' || seq AS position"
_RECEIVED: Final = f"CASE WHEN ms <= {_LAST_MS} THEN make_timestamptz(ms::BIGINT * 1000) END AS received"
_EVENT: Final = "replace(decode(event), chr(0), id::VARCHAR)"
_TEXT: Final = "coalesce(try(decode({0})), {0}::VARCHAR)"
_BY: Final = _TEXT.format('"by"') + ' AS "by"'

_AT: Final = (
    Column("side", "VARCHAR", "whose log it is; a position is one of this side's"),
    Column("position", "VARCHAR", "where the entry stands, `milliseconds-sequence`"),
    Column("ms", "UBIGINT", "the milliseconds of the position"),
    Column("seq", "UBIGINT", "its sequence; with `ms` the order of the log"),
    Column("received", "TIMESTAMP WITH TIME ZONE", "the time of receipt: the position's milliseconds"),
)

_EVENT_COLUMNS: Final = (
    *_AT,
    Column("id", "UUID", "the event's id"),
    Column("amends", "UUID", "the id of the original report, of an amendment"),
    Column("key", "UUID", "the identity of the report: `amends`, else `id`"),
    Column("revision", "INTEGER", "0 of an original"),
    Column("type", "VARCHAR", "`apprehension`, `smuggler-arrest` and so on, without prefix and version"),
    Column("event_side", "VARCHAR", "the event's own side; another than `side` was parked as `wrong-side`"),
    Column("unit", "VARCHAR", "who reports"),
    Column("device", "VARCHAR", "the app installation that it reports from"),
    Column("reportno", "BIGINT", "the device's running number"),
    Column("operation", "VARCHAR", "the operation, or the empty text"),
    Column("section", "VARCHAR", "the section, or the empty text where the type has none"),
    Column("time", "TIMESTAMP WITH TIME ZONE", "when it happened"),
    Column("day", "DATE", "the local calendar day of `time` in the side's zone"),
    Column("case", "VARCHAR", "the case of a smuggler arrest or of custody"),
    Column("opens_case", "BOOLEAN", "whether a smuggler arrest opens its case"),
    Column(
        "counts",
        _COUNTS,
        "what a report counts, by citizenship: `persons` apprehended, `smugglers` arrested and `smuggled_persons` "
        "found with them, or persons `remanded` in custody",
    ),
    Column("totals", _TOTALS, "what an opening balance books"),
    Column("period_from", "DATE", "first day of an opening balance"),
    Column("period_to", "DATE", "last day of an opening balance, on which it is booked"),
    Column("reason", "VARCHAR", "why a report was withdrawn"),
    Column("event", "VARCHAR", "the event as it stands in the log, JSON; `event->>'$.data.section'` reads in it"),
    Column("by", "VARCHAR", "who was authenticated when it was recorded; absent on direct writes"),
)


def _events(side: Side) -> str:
    return (
        f"SELECT '{side}' AS side, {_POSITION}, ms, seq, {_RECEIVED}, id, amends, {counting.KEY} AS key, revision, "
        f"type, side AS event_side, unit, device, reportno, operation, section, time, {counting.LOCAL_DAY} AS day, "
        '"case", opens_case, counts, totals, period_from, period_to, reason, '
        f"{_EVENT} AS event, {_BY} "
        f"FROM internal.log_{side} JOIN internal.days_{side} ON utc_day = {counting.UTC_DAY} WHERE fault IS NULL"
    )


# What two reports with the same key and revision are compared by: all they say, but for who sent it.
_OFFSET: Final = "replace(replace(regexp_extract({0}, '[+-][0-9:]+$'), '+00:00', ''), '-00:00', '')"
_MOMENT: Final = (
    "CASE WHEN {0} IS NOT NULL THEN row(try_cast(regexp_replace(upper({0}), '([.][0-9]{{6}})[0-9]+', '\\1') "
    f"AS TIMESTAMPTZ), {_OFFSET}) END"
)
_SAID: Final = "json_extract_string(said, '$.data.{}')"
_CONTENT: Final = ", ".join(
    (
        "type", "operation", "time", _OFFSET.format("json_extract_string(said, '$.time')"), "section", '"case"',
        "opens_case", "counts", "totals", "period_from", "period_to", "reason",
        *(_SAID.format(name) for name in ("name", "starts", "ends", "closed")),
        *(_SAID.format(f"sections[*].{name}") for name in ("section", "area", "coverage")),
        *(
            f"CASE WHEN type = 'nil-report' THEN {_MOMENT.format(_SAID.format(name))} END"
            for name in ("period_from", "period_to")
        ),
    )
)  # fmt: skip


def _outcomes(side: Side) -> str:
    """Only what shares its key is looked at: every other event was applied, and is in force."""
    return f"""
        SELECT '{side}' AS side, {_POSITION}, log.ms, log.seq, id, {counting.KEY} AS key, revision, type,
            CASE WHEN side <> '{side}' THEN 'wrong-side' ELSE coalesce(outcome, 'applied') END AS outcome,
            side = '{side}' AND replaced.ms IS NULL AS in_force
        FROM internal.log_{side} AS log LEFT JOIN internal.replaced_{side} AS replaced USING (ms, seq) LEFT JOIN (
            WITH content AS (
                SELECT ms, seq, high, low, revision, row({_CONTENT}) AS content FROM (
                    SELECT log.*, high, low, {_EVENT} AS said
                    FROM internal.log_{side} AS log JOIN internal.versions_{side} AS version USING (ms, seq)
                )
            ), judged AS (
                SELECT *,
                    max(revision) OVER (
                        PARTITION BY high, low ORDER BY ms, seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ) AS before,
                    first_value(content) OVER (PARTITION BY high, low, revision ORDER BY ms, seq) AS stands
                FROM content
            )
            SELECT ms, seq, CASE
                WHEN before IS NULL THEN 'applied'
                WHEN revision > before THEN 'replaced'
                WHEN revision < before THEN 'superseded'
                WHEN content IS NOT DISTINCT FROM stands THEN 'duplicate'
                ELSE 'conflict' END AS outcome
            FROM judged
        ) AS again USING (ms, seq)
        WHERE fault IS NULL"""


def _effective(side: Side) -> str:
    return (
        f"SELECT * FROM events ANTI JOIN internal.replaced_{side} USING (ms, seq) "
        f"WHERE side = '{side}' AND event_side = '{side}'"
    )


def _tallies(side: Side) -> str:
    return (
        f"SELECT '{side}' AS side, operation, section, day, measure, citizenship, count FROM ({counting.cells(side)})"
    )


def _plans(side: Side) -> str:
    return f"""
        SELECT side, operation, event->>'$.data.name' AS name, (event->>'$.data.starts')::DATE AS starts,
            (event->>'$.data.ends')::DATE AS ends, plan->>'$.section' AS section, plan->>'$.area' AS area,
            plan->>'$.coverage' AS coverage, position
        FROM (
            SELECT *, unnest(json_extract(event, '$.data.sections[*]')) AS plan FROM (
                SELECT * FROM effective WHERE side = '{side}' AND type = 'operation-opened'
                QUALIFY row_number() OVER (PARTITION BY operation ORDER BY time DESC, key DESC) = 1
            )
        )"""


def _parked(side: Side) -> str:
    return (
        f"SELECT '{side}' AS side, {_POSITION}, ms, seq, {_RECEIVED}, fault AS reason, NULL::UUID AS id, "
        f"{_TEXT.format('event')} AS event, {_BY} FROM internal.log_{side} WHERE fault IS NOT NULL "
        "UNION ALL "
        'SELECT side, position, ms, seq, received, outcome AS reason, id, event, "by" '
        "FROM events JOIN outcomes USING (side, position, ms, seq, id) "
        f"WHERE side = '{side}' AND outcome IN ('wrong-side', 'conflict')"
    )


VIEWS: Final = (
    View(
        "events",
        "Every readable event, whatever became of it; one row is one entry of the log.",
        _EVENT_COLUMNS,
        _events,
    ),
    View(
        "outcomes",
        "What became of each readable event when it came.",
        (
            *_AT[:4],
            Column("id", "UUID", "the event's id"),
            Column("key", "UUID", "the identity of the report"),
            Column("revision", "INTEGER", "0 of an original"),
            Column("type", "VARCHAR", "the event's type"),
            Column(
                "outcome",
                "VARCHAR",
                "`applied`, `replaced` (it took the place of a lower revision), `superseded` (a higher one stood), "
                "`duplicate`, `conflict` or `wrong-side`",
            ),
            Column("in_force", "BOOLEAN", "whether it is the version that counts now"),
        ),
        _outcomes,
    ),
    View(
        "effective",
        "The events in force: those that the tallies are made of. The columns are those of `events`.",
        _EVENT_COLUMNS,
        _effective,
    ),
    View(
        "tallies",
        "The cells, as SQL counts them. Measures have units of their own and are never summed: choose or group by one.",
        (
            Column("side", "VARCHAR", "whose authorities count the result"),
            Column("operation", "VARCHAR", "the operation, or the empty text"),
            Column("section", "VARCHAR", "the section, or the empty text"),
            Column("day", "DATE", "the local calendar day"),
            Column("measure", "VARCHAR", ", ".join(f"`{name}` ({unit})" for name, unit in UNITS.items())),
            Column("citizenship", "VARCHAR", "the three-letter code, or the empty text"),
            Column("count", "BIGINT", "never 0"),
        ),
        _tallies,
    ),
    View(
        "plans",
        "The plan in force of each operation, a row for each section: it says how the operation covers it.",
        (
            Column("side", "VARCHAR", "whose plan it is"),
            Column("operation", "VARCHAR", "the operation"),
            Column("name", "VARCHAR", "its name"),
            Column("starts", "DATE", "its first day"),
            Column("ends", "DATE", "its last day as planned"),
            Column("section", "VARCHAR", "the section"),
            Column("area", "VARCHAR", "what the section is called"),
            Column("coverage", "VARCHAR", "`joint` or `remaining`"),
            Column("position", "VARCHAR", "where the plan stands in the side's log"),
        ),
        _plans,
    ),
    View(
        "parked",
        "What was set aside instead of counted, with the reason.",
        (
            *_AT,
            Column("reason", "VARCHAR", "`malformed`, `unknown-type`, `wrong-side` or `conflict`"),
            Column("id", "UUID", "the event's id, if it is one"),
            Column("event", "VARCHAR", "the field `event` of the entry; bytes that are no text are written as `\\xFF`"),
            Column("by", "VARCHAR", "who was authenticated when it was recorded"),
        ),
        _parked,
    ),
)
