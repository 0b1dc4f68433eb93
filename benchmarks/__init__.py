"""What is measured; `python -m benchmarks list` says what there is."""
