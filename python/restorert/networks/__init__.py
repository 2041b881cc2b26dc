"""The networks as published: one family a file, and the registry of their variants."""

from restorert.networks.module import NetworkFamily, RestorationNetwork, Rewrite
from restorert.networks.registry import (
    FAMILIES,
    create_network,
    list_networks,
    network_from_state_dict,
    network_spec,
    seed_of,
)
from restorert.spec import NetworkConfig, NetworkSpec

__all__ = [
    "FAMILIES",
    "NetworkConfig",
    "NetworkFamily",
    "NetworkSpec",
    "RestorationNetwork",
    "Rewrite",
    "create_network",
    "list_networks",
    "network_from_state_dict",
    "network_spec",
    "seed_of",
]
