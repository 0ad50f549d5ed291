"""Kubernetes: kubeconfig, its API, the way to the manager, what is installed there."""
