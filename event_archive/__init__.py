"""Moves aged events out of PostgreSQL into one CSV a UTC day, and deletes only what it has read back."""
