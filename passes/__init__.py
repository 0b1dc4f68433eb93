"""Passes over the error-pathway graph, one a file."""
