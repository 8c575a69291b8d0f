"""Logs, metrics, traces and recent refusals of requests that are over."""
