"""gRPC: the protocol's messages, the channel interface, and transports."""
