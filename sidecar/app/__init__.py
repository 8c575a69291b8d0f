"""The running program: building it from the configuration, reload, workers, health and admin listeners."""
