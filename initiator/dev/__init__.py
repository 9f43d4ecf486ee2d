"""What a developer needs around the daemon: a whole system on one machine."""
