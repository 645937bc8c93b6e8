"""The closed vocabularies and name rules that events, tallies and selectors share."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final, Literal, NamedTuple, NewType, get_args

from msgspec import Meta

Side = NewType("Side", str)
"""ISO 3166-1 alpha-2 code of the country whose authorities count the result."""

Position = NewType("Position", str)
"""A stream entry ID, `milliseconds-sequence`; the milliseconds are the time of receipt."""

START: Final = Position("0-0")
"""The position before the first entry of any log."""


Measure = Literal[
    "apprehensions", "persons", "smuggling_cases", "smugglers", "smuggled_persons", "remanded", "nil_reports"
]  # fmt: skip
"""What is counted; each has a unit of its own and is never added to another (DESIGN section 3)."""

UNITS: Final[dict[Measure, str]] = {
    "apprehensions": "incidents",
    "persons": "persons apprehended",
    "smuggling_cases": "cases",
    "smugglers": "persons arrested",
    "smuggled_persons": "persons found with smugglers",
    "remanded": "persons remanded in custody",
    "nil_reports": "reports",
}

Coverage = Literal["joint", "remaining"]
"""How an operation covers a section: by joint mixed patrols, or as one of the remaining areas."""

WithdrawalReason = Literal["duplicate", "did-not-occur", "out-of-scope", "data-entry-error"]
"""Why a report no longer counts."""

ParkedReason = Literal["malformed", "unknown-type", "wrong-side", "conflict"]
"""Why an entry of the log was set aside instead of counted."""

# The three-letter codes of travel documents. ISO 3166-1 alpha-3 as of 2026, then what ICAO 9303 part 3 section 5 adds:
# XXA stateless, XXB refugee (1951 Convention), XXC other refugee, XXX unspecified; and RKS, Kosovo.
Citizenship = Literal[
    "ABW", "AFG", "AGO", "AIA", "ALA", "ALB", "AND", "ARE", "ARG", "ARM", "ASM", "ATA", "ATF", "ATG", "AUS", "AUT",
    "AZE", "BDI", "BEL", "BEN", "BES", "BFA", "BGD", "BGR", "BHR", "BHS", "BIH", "BLM", "BLR", "BLZ", "BMU", "BOL",
    "BRA", "BRB", "BRN", "BTN", "BVT", "BWA", "CAF", "CAN", "CCK", "CHE", "CHL", "CHN", "CIV", "CMR", "COD", "COG",
    "COK", "COL", "COM", "CPV", "CRI", "CUB", "CUW", "CXR", "CYM", "CYP", "CZE", "DEU", "DJI", "DMA", "DNK", "DOM",
    "DZA", "ECU", "EGY", "ERI", "ESH", "ESP", "EST", "ETH", "FIN", "FJI", "FLK", "FRA", "FRO", "FSM", "GAB", "GBR",
    "GEO", "GGY", "GHA", "GIB", "GIN", "GLP", "GMB", "GNB", "GNQ", "GRC", "GRD", "GRL", "GTM", "GUF", "GUM", "GUY",
    "HKG", "HMD", "HND", "HRV", "HTI", "HUN", "IDN", "IMN", "IND", "IOT", "IRL", "IRN", "IRQ", "ISL", "ISR", "ITA",
    "JAM", "JEY", "JOR", "JPN", "KAZ", "KEN", "KGZ", "KHM", "KIR", "KNA", "KOR", "KWT", "LAO", "LBN", "LBR", "LBY",
    "LCA", "LIE", "LKA", "LSO", "LTU", "LUX", "LVA", "MAC", "MAF", "MAR", "MCO", "MDA", "MDG", "MDV", "MEX", "MHL",
    "MKD", "MLI", "MLT", "MMR", "MNE", "MNG", "MNP", "MOZ", "MRT", "MSR", "MTQ", "MUS", "MWI", "MYS", "MYT", "NAM",
    "NCL", "NER", "NFK", "NGA", "NIC", "NIU", "NLD", "NOR", "NPL", "NRU", "NZL", "OMN", "PAK", "PAN", "PCN", "PER",
    "PHL", "PLW", "PNG", "POL", "PRI", "PRK", "PRT", "PRY", "PSE", "PYF", "QAT", "REU", "ROU", "RUS", "RWA", "SAU",
    "SDN", "SEN", "SGP", "SGS", "SHN", "SJM", "SLB", "SLE", "SLV", "SMR", "SOM", "SPM", "SRB", "SSD", "STP", "SUR",
    "SVK", "SVN", "SWE", "SWZ", "SXM", "SYC", "SYR", "TCA", "TCD", "TGO", "THA", "TJK", "TKL", "TKM", "TLS", "TON",
    "TTO", "TUN", "TUR", "TUV", "TWN", "TZA", "UGA", "UKR", "UMI", "URY", "USA", "UZB", "VAT", "VCT", "VEN", "VGB",
    "VIR", "VNM", "VUT", "WLF", "WSM", "YEM", "ZAF", "ZMB", "ZWE",
    "XXA", "XXB", "XXC", "XXX", "RKS",
]  # fmt: skip
CITIZENSHIPS: Final[frozenset[str]] = frozenset(get_args(Citizenship))

COUNT_MAX: Final = 10_000
BALANCE_MAX: Final = 1_000_000_000
REVISION_MAX: Final = 1_000_000
REPORTNO_MAX: Final = 1_000_000_000_000
TEXT_MAX: Final = 200

Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]

# Operations, sections and cases are codes, not free text. The characters leave out what separates the parts of a cell.
NAME_PATTERN: Final = r"^[A-Za-z0-9._/-]{1,64}\Z"
NAME_RULE: Final = "has 1 to 64 characters of A-Z a-z 0-9 . _ / -"
SIDE_PATTERN: Final = r"^[A-Z]{2}\Z"
SOURCE_PATTERN: Final = r"^/[A-Z]{2}/[A-Za-z0-9-]{1,64}/[A-Za-z0-9-]{1,64}\Z"

# Who wrote an entry of the log: who was authenticated, or who put which parked entry back.
BY_PATTERN: Final = (
    r"^(/[A-Z]{2}/[A-Za-z0-9-]{1,64}/[A-Za-z0-9-]{1,64}|requeue/[A-Z]{2}:[0-9]+-[0-9]+/[A-Za-z0-9._-]{1,64})\Z"
)

# The patterns stand in the JSON Schema only: `is_name` and `parse_source` check them once per distinct value, which
# is several times cheaper than a regular expression per event.
SideCode = Annotated[Side, Meta(extra_json_schema={"pattern": SIDE_PATTERN.replace(r"\Z", "$")})]
Name = Annotated[str, Meta(extra_json_schema={"pattern": NAME_PATTERN.replace(r"\Z", "$")})]
SourcePath = Annotated[str, Meta(extra_json_schema={"pattern": SOURCE_PATTERN.replace(r"\Z", "$")})]

_name = re.compile(NAME_PATTERN)
_source = re.compile(SOURCE_PATTERN)


class Source(NamedTuple):
    """Who reports: the parts of an event's `source`, `/side/unit/device`."""

    side: Side
    unit: str
    device: str


def order(position: str) -> tuple[int, int]:
    """Return what positions sort by; as text they do not."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)


LAST_SEQUENCE: Final = 2**64 - 1
"""The highest sequence of a position: a stream's IDs are two numbers of 64 bits."""


def preceding(position: str) -> Position:
    """Return the position right before one, whether or not anything stands there."""
    milliseconds, sequence = order(position)
    return Position(f"{milliseconds}-{sequence - 1}" if sequence else f"{milliseconds - 1}-{LAST_SEQUENCE}")


def following(position: str) -> Position:
    """Return the position right after one, whether or not anything stands there."""
    milliseconds, sequence = order(position)
    return Position(f"{milliseconds}-{sequence + 1}" if sequence < LAST_SEQUENCE else f"{milliseconds + 1}-0")


@lru_cache(maxsize=65_536)
def is_name(text: str) -> bool:
    """Tell whether this may name an operation, a section or a case."""
    return _name.match(text) is not None


@lru_cache(maxsize=65_536)
def parse_source(text: str) -> Source:
    """Split `/side/unit/device`, or raise ValueError naming the rule (DESIGN section 2)."""
    if not _source.match(text):
        raise ValueError("`source` is /side/unit/device: two capital letters, then parts of 1 to 64 of A-Z a-z 0-9 -")
    _, side, unit, device = text.split("/")
    return Source(Side(side), unit, device)
