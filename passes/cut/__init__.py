"""How the forward graph is cut into regions; `altprop.passes.cut_regions` is the pass."""
