"""The proxy between a real client, a real issuer and a real backend."""
