"""Configurations of nats-server: what `core.accounts` grants, in plain form and as JWTs, with fresh keys in files."""
