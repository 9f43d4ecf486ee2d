"""AWS KMS: the only room that imports boto3 and botocore, beside `audit.s3`."""

from initiator.kms.signer import KmsSigner

__all__ = ["KmsSigner"]
