"""Configuration: one YAML file, environment over file, command line over environment."""
