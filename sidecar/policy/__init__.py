"""What a route asks of a request, and what the backend is told about who is asking."""
