"""What tunstack's objects in a cluster are called."""

NAME = "tunstack"
"""Of the namespace by default, and of nearly every object in it."""

LABEL = "app.kubernetes.io/name"
"""Every object of ours has it, with :data:`NAME`: what `uninstall` goes by."""

COMPONENT = "app.kubernetes.io/component"
"""``manager``, or ``grant`` for what lets users in."""

SELECTOR = f"{LABEL}={NAME}"
MANAGERS = f"{SELECTOR},{COMPONENT}=manager"

PORT = 7777
"""Where a manager listens on the loopback of its pod."""

HEALTH_PORT = 8080
"""Where a manager tells probes how it is, and laptops whose cluster it is in."""
