"""Paid requests of a site with every kind of incentive, beside those of one without."""

from __future__ import annotations

from pathlib import Path

from channelpay.payee.selling.incentives import Incentive
from scripts.bench.database import sqlite_url
from scripts.bench.figures import Ratio, Table, Target
from scripts.bench.paid import BUSY, CHANNELS, COLUMNS, Lab, Server, enter_payers, figures_of, site

REACH = 1.1
"""How much longer a request may take with incentives than without."""
INCENTIVES = (
    Incentive("first-free", count=1, deposit_min="0.001", day_max=100),
    Incentive("nth-free", every=100),
    Incentive("window", percent=10, begin="00:00", end="12:00", utc_offset="+00:00"),
    Incentive("volume", tiers=[{"count": 10, "percent": 5}, {"count": 100, "percent": 10}]),
    Incentive("cash-back", percent=1),
    Incentive("points", per="0.000001", worth="0.00000001"),
    Incentive("referral", reward="0.000001", deposit_min="0.001", day_max=100),
)
_WITHOUT, _WITH = "without", "with incentives"


def measure(lab: Lab, directory: Path) -> None:
    """One worker on SQLite for each of the two."""
    directory.mkdir()
    urls = [sqlite_url(directory / f"{name}.sqlite3") for name in ("without", "with")]
    for url in urls:
        enter_payers(lab, url)
    with (
        site(lab, urls[0], 1, {}) as plain,
        site(lab, urls[1], 1, {}, incentives=INCENTIVES) as selling,
    ):
        servers = {_WITHOUT: plain, _WITH: selling}
        for server in servers.values():
            lab.load(server, BUSY, CHANNELS[-1])
        rounds = [_round(lab, servers) for _ in range(lab.extent.rounds)]
    rows = tuple((name, *figures_of(name, rounds)) for name in servers)
    note = f"SQLite, one worker, {BUSY} in flight, {CHANNELS[-1]} channels; each kind of incentive."
    table = Table("Requests with incentives", note, ("paid request", *COLUMNS), rows)
    lab.findings.tables.append(table)
    ratio = Ratio.of(one[f"{_WITHOUT} rate"] / one[f"{_WITH} rate"] for one in rounds)
    title = f"time of a paid request with incentives / without, {BUSY} in flight"
    lab.findings.targets.append(Target(title, ratio, REACH, at_most=True))


def _round(lab: Lab, servers: dict[str, Server]) -> dict[str, float]:
    taken: dict[str, float] = {}
    for name, server in servers.items():
        figures = lab.load(server, BUSY, CHANNELS[-1])
        taken |= {f"{name} {figure}": value for figure, value in figures.items()}
    return taken
