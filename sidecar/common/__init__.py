"""Code that every other folder may use and that knows no requests: time, files, TLS, the reasons of refusals."""
