"""What runs a program: one backend a file."""
