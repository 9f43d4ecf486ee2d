"""The audit trail outside of NATS: the record as an append-only Merkle log that an outsider verifies by its files."""
