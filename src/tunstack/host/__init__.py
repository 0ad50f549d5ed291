"""This computer, and what root is for."""
