"""Several worker processes and their supervisor."""
