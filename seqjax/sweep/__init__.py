"""Searches: the space of combinations, and what came of them."""
