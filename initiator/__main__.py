"""`python -m initiator`."""

from initiator.cli import main

if __name__ == "__main__":
    main()
