"""Graph files <-> Topology: who exists, what each holds, who is linked to whom and how well."""

from mfd.topology.files import dump, from_graph, load, to_graph
from mfd.topology.layout import place
from mfd.topology.making import KINDS, PURPOSES, make
from mfd.topology.values import (
    BULK_BYTES,
    THIN_BYTES,
    Edge,
    Node,
    Topology,
    TopologyError,
    link_cost,
)

__all__ = [
    "BULK_BYTES",
    "KINDS",
    "PURPOSES",
    "THIN_BYTES",
    "Edge",
    "Node",
    "Topology",
    "TopologyError",
    "dump",
    "from_graph",
    "link_cost",
    "load",
    "make",
    "place",
    "to_graph",
]
