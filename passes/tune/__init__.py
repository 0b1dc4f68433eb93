"""What makes flat programs faster without changing their numbers, one step a file."""
