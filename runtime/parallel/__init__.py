"""Runs schedules: serially, on threads, and on processes over torch.distributed."""
