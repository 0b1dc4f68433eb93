"""From a derived graph to one program a device: pieces, placement, order, transfers, checks, simulation."""
