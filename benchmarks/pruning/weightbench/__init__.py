"""Scores, patterns, forms of low rank and their allocation, on the same models, data and seeds."""
