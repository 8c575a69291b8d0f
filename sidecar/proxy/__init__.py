"""The data plane: connections of clients and backends, and the life of a request between them."""
