"""Machines (sans-IO): whose question is it, what is known of it, who is to be asked."""
