"""Benchmarks for a user on their own machine, each beside a ceiling of that machine."""
