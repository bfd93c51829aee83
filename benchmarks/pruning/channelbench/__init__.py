"""Channels removed from real nets: which score finds the right ones, and what it is worth in time."""
