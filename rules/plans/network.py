"""What a wiring plan may know of a network."""

import dataclasses
from collections.abc import Sequence

import networkx as nx

from altprop.ir.region import Region, forward_edges


@dataclasses.dataclass(frozen=True)
class Network:
    """What a plan may know of a network: its regions and the forward edges between them."""

    regions: tuple[Region, ...]
    edges: "nx.DiGraph[str]"

    @staticmethod
    def of(regions: Sequence[Region]) -> "Network":
        """Builds the network of some regions."""
        return Network(tuple(regions), forward_edges(tuple(regions)))

    def region(self, name: str) -> Region:
        """Returns the region called `name`."""
        return next(region for region in self.regions if region.name == name)

    def consumers(self, region: Region) -> list[Region]:
        """Returns the regions that read `region`, in forward order."""
        return [r for r in self.regions if self.edges.has_edge(region.name, r.name)]

    @property
    def hidden(self) -> list[Region]:
        """The regions that are no output and have something to learn, in forward order."""
        return [r for r in self.regions if not r.is_output and r.learns]

    def leads_to(self, region: Region, other: Region) -> bool:
        """Whether `other` comes behind `region` in the forward pass."""
        return region.name != other.name and nx.has_path(self.edges, region.name, other.name)

    def outputs_after(self, region: Region) -> list[Region]:
        """Returns the output regions that `region` leads to, itself excluded."""
        later = nx.descendants(self.edges, region.name)
        return [r for r in self.regions if r.is_output and r.name in later]
