"""`import`: converts the configuration of another program, and names every setting without an equivalent."""
