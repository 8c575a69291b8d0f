"""`jwt-sidecar dev`: the proxy with an embedded issuer and backend, to try it with nothing else installed."""
