"""What every other folder may use: the reasons of refusals."""
