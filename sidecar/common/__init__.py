"""What every folder above may use, and what knows nothing of requests: time, files, TLS, the reasons of refusals."""
