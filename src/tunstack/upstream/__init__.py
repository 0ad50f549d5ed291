"""Asks name servers: what the manager does in the cluster, and the engine on this host."""
