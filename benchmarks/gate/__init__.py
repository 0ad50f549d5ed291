"""The regression gate: what this checkout costs, beside what a committed baseline did."""
