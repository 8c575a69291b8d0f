"""`explain`: tells check by check what would happen to a request."""
