"""The data plane: the connections of clients and of backends, and the life of a request between them."""
