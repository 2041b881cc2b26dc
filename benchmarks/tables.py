"""Parameters and MACs of every network, beside what the papers publish.

    python benchmarks/tables.py

MACs are counted exactly, and as the papers' tools count them: a transposed convolution once per
output pixel. The second table holds the published shares of MACs that HINet needs of MPRNet's.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import report
import restorert as rr
from restorert.networks.counts import count_variant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@functools.cache
def papers() -> dict[str, Any]:
    """benchmarks/papers.toml."""
    path = Path(__file__).parent / "papers.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def paper_parameters(network: str) -> float | None:
    """Published parameters in millions, of this variant or of one with an equal config."""
    published = {row["network"]: row["params_m"] for t in papers()["params"] for row in t["rows"]}
    published |= {
        row["network"]: row["params_m"]
        for table in papers()["speed"]
        for row in table["rows"]
        if "network" in row and "params_m" in row and row["network"] not in published
    }
    spec = rr.network_spec(network)
    for name, millions in published.items():
        if name == network or (
            name in rr.list_networks()
            and rr.network_spec(name).family == spec.family
            # variants of a family that have as many have equal layers
            and count_variant(name).parameters == count_variant(network).parameters
        ):
            return float(millions)
    return None


def paper_macs_share(network: str) -> str | None:
    """The published share of another network's MACs, in words."""
    for row in published_shares():
        if row["network"] == network:
            return f"published: {row['macs_share']:.1%} of {row['against']}'s"
    return None


def published_shares() -> list[dict[str, Any]]:
    """Rows of papers.toml that state one network's MACs as a share of another's."""
    return [row for t in papers()["ratio"] for row in t["rows"] if "macs_share" in row]


def main() -> int:
    return report.main(report.parser(__doc__), run)


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(
        title="one picture of 256x256 (or the next size the network takes); the papers' tools "
        "count a transposed convolution once per output pixel"
    )
    for column in ("network", "params M", "paper", "GMAC exact", "as papers count", "size"):
        table.add_column(column, justify="left" if column == "network" else "right", no_wrap=True)
    for name in rr.list_networks():
        published = paper_parameters(name)
        count = count_variant(name)
        height, width = rr.network_spec(name).shape_for(256, 256)[2:]
        table.add_row(
            name,
            f"{count.parameters / 1e6:.2f}",
            f"{published:.2f}" if published else "-",
            f"{count.macs.exact / 1e9:.1f}",
            f"{count.macs.paper / 1e9:.1f}",
            f"{width}x{height}",
        )
    console.print(table)
    shares = Table(title="MACs as a share of another network's")
    for column in ("network", "of", "published", "as papers count", "exact"):
        left = column in ("network", "of")
        shares.add_column(column, justify="left" if left else "right", no_wrap=True)
    for row in published_shares():
        ours, other = (count_variant(row[key]).macs for key in ("network", "against"))
        shares.add_row(
            row["network"],
            row["against"],
            f"{row['macs_share']:.1%}",
            f"{ours.paper / other.paper:.1%}",
            f"{ours.exact / other.exact:.1%}",
        )
    console.print(shares)
    return 0


if __name__ == "__main__":
    sys.exit(main())
