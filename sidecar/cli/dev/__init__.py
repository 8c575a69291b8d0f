"""An issuer and a backend inside the process: `jwt-sidecar dev` shows everything with nothing else installed."""
