"""`explain`: what would happen to a request, check by check."""
