"""Program: the cluster's side, which opens the real connections."""
