"""`initiator`: the KMS-backed event initiator of an mpcium MPC wallet cluster."""

__version__ = "0.1.0"
