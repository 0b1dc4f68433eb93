"""How a model becomes a graph: its forward is traced once, and what torch cannot trace is said in a sentence."""
