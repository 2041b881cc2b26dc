"""Parameters and MACs of every network beside what the papers publish.

python benchmarks/tables.py
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters

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
    """Published parameters in millions, of this variant or of one with equal sizes."""
    published = {row["network"]: row["params_m"] for t in papers()["params"] for row in t["rows"]}
    config = rr.network_spec(network).config
    for name, millions in published.items():
        if name == network:
            return float(millions)
        if name in rr.list_networks() and rr.network_spec(name).config.__class__ is type(config):
            other = rr.network_spec(name).config
            if getattr(other, "width", None) == getattr(config, "width", 0):
                return float(millions)
    return None


def paper_macs_share(network: str) -> str | None:
    """The published share of another network's MACs, in words."""
    for table in papers()["ratio"]:
        for row in table["rows"]:
            if row["network"] == network and "macs_share" in row:
                return f"published: {row['macs_share']:.1%} of {row['against']}'s"
    return None


def main() -> None:
    console = Console()
    table = Table(title="1x3x256x256; paper's MACs count a transposed convolution an output pixel")
    for column in ("network", "params M", "paper", "GMAC exact", "as papers count"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name in rr.list_networks():
        with torch.device("meta"):
            network = rr.create_network(name)
        macs = count_macs(network, (1, network.spec.in_channels, 256, 256))
        published = paper_parameters(name)
        table.add_row(
            name,
            f"{count_parameters(network) / 1e6:.2f}",
            f"{published:.2f}" if published else "-",
            f"{macs.exact / 1e9:.1f}",
            f"{macs.paper / 1e9:.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
