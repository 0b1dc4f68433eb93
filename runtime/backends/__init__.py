"""What runs programs: one backend a file, and the table of them."""
