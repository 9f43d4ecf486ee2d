"""The documentation: the site builds, and every block of code in it is run."""
