"""HTTP/1.1 as bytes and facts: no sockets, no clocks, no await. Nothing here knows what a token or a route is."""
