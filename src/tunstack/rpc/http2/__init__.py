"""HTTP/2 as gRPC uses it, sans-IO: octets and the time in, octets and events out."""
