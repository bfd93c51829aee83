"""Latency predicted from measurements."""
