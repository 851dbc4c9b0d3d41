"""Metrics of roads: pure functions of arrays and graphs."""
