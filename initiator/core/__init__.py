"""The pure core: rules without I/O, clock or environment."""
