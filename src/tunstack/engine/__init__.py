"""Program and library: the session on the developer's side."""
