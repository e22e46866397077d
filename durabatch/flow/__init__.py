"""Decisions without I/O: pure functions over numbers and facts, tested without a process."""
