"""How often everything is measured, and how it is printed: medians, with the lowest and the highest."""

from __future__ import annotations

import statistics
import sys

QUICK = "--quick" in sys.argv
ROUNDS = 3 if QUICK else 5


def p99_ms(waits_s: list[float]) -> float:
    """Return the p99 in milliseconds."""
    return statistics.quantiles(waits_s, n=100, method="inclusive")[98] * 1e3


def show_waits(waits: list[float]) -> None:
    """Print how long reports took to be counted."""
    cuts = statistics.quantiles(waits, n=1000, method="inclusive")
    p50, p99, p999 = (f"{cuts[at] * 1e3:.1f} ms" for at in (499, 989, 998))
    print(f"  {len(waits):,} reports: p50 {p50}, p99 {p99}, p99.9 {p999}")


def show(what: str, rates: list[float], unit: str, digits: int = 0) -> None:
    """Print the median and the spread of one thing measured."""
    low, middle, high = (f"{rate:,.{digits}f}" for rate in (min(rates), statistics.median(rates), max(rates)))
    print(f"  {what}: {middle} {unit} ({low} to {high})")


def ratio(what: str, ours: list[float], theirs: list[float]) -> None:
    """Print the median of the ratios, round by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"  ratio: {what}  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
