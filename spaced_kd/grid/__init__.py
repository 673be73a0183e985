"""Grids of ordinary runs: one config, varied cell by cell (`python -m spaced_kd.grid`).

cells: what a grid is; sweep: does its runs; outcome: numbers and table; figure.
"""
