"""Measurements of trained networks, one a file."""
