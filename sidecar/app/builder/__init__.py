"""Builds the objects that serve requests from the configuration. Only this folder knows both."""
