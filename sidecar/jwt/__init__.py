"""Tokens: where requests bring them, how they are verified, and which are revoked."""
