"""CPU time per request of jwt-sidecar and its peers, measured side by side on one machine: `python -m benchmarks`."""
