"""The commands of `jwt-sidecar`."""
