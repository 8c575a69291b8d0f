"""What is told of requests once they are over: to logs, metrics, traces and operators."""
