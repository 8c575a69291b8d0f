"""The rules of routes, and the identity headers for the backend."""
