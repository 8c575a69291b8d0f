"""The configuration -> the objects that serve requests. The only place that knows both."""
