"""Tokens: where a request brings one, what it must be and say, and whether somebody has revoked it."""
