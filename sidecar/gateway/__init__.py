"""The gateway half: API keys, signing keys, minted tokens, and the sidecar's own pages on the proxy's listener."""
