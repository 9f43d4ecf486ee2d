"""The flows: one request from its delivery to its final event, and the nodes' results back into the record."""
