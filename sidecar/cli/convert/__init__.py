"""`import`: the configuration of another program -> ours, and by name whatever has no equivalent. Serves that command only."""
