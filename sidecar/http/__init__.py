"""HTTP/1.1 as pure functions of bytes: no sockets, no clocks, no await, no tokens, no routes."""
