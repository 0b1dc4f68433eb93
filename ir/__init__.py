"""Data that the compiler and the runtime agree on: regions, graphs, plans, programs, errors."""
