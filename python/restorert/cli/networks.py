"""restorert networks."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    networks = commands.add_parser("networks", help="list the networks")
    networks.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the table of networks."""
    from rich.console import Console
    from rich.table import Table

    from restorert import list_networks, network_spec
    from restorert.networks.counts import count_variant

    table = Table(title="GMAC for a picture of 256x256; PSNR in dB as reported by the authors")
    table.add_column("network", no_wrap=True)
    for heading in ("task", "paper", "params M", "GMAC", "paper PSNR", "multiple", "tile"):
        table.add_column(heading)
    for name in list_networks():
        spec, count = network_spec(name), count_variant(name)
        table.add_row(
            name,
            spec.task,
            spec.paper,
            f"{count.parameters / 1e6:.2f}",
            f"{count.macs.exact / 1e9:.1f}",
            "-" if spec.paper_psnr is None else f"{spec.paper_psnr[1]:.2f} {spec.paper_psnr[0]}",
            str(spec.size_multiple),
            str(spec.tile or "-"),
        )
    # A file or a pipe has no width.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0
