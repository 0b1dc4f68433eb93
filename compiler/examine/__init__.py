"""What is said before any work: what would compile, what would not and why."""
