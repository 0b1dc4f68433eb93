"""Named wiring plans, computed from the graph of regions.

* *chain*: each region hears from the region that reads it, `l+1 -> l`; a rule that follows the forward's edges
  hears from all of them. (Of several readers the nearest on the longest path is heard, so that no second signal
  leaks along a skip path.)
* *direct*: each region hears from the output, `L -> l`.
* *edges*: each region hears from every region that reads it, along forward skips too, by feedback in the shape of the
  weights between them: the way of backpropagation, and as sequential.
* *blocks*: the last region of each block hears from the output, the others inside the block from the next one; what
  lies outside all blocks hears from the output. Without repeated submodules, groups of `gap` regions are the blocks:
  `"blocks(gap=3)"`. `inside='edges'` lets the others hear from all in the block that read them, as under *edges*;
  `ends='next'` lets the last region hear from the end of the next block, not from the output; `by='stage'` makes one
  block of all repeated submodules in a row.
* *recursive*: `"recursive(depth=2, by='bottleneck')"`; see `altprop.rules.plans.recursion`.
* *modules*: `"modules(gap=3)"`: the last region of each module hears exactly from what reads it, the others of the
  module hear from that last one.
* *head*: fully connected regions at the end hear from the output, all others exactly from what reads them.
"""

from altprop.rules.plans.make_plan import make_plan
from altprop.rules.plans.named import PLANS
from altprop.rules.plans.network import Network

__all__ = ["PLANS", "Network", "make_plan"]
