"""Fuzzing of every decoder: `make fuzz DURATION=60 SEED=1`; `python -m tests.fuzz --only request` narrows it.

Each input is a valid one, changed: bytes by bytes, or a value of its structure by an odd one. A decoder may return a
value or raise the errors that it documents; anything else is a crash, and more than a second is a hang.
"""
