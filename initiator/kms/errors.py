"""KMS's and botocore's errors as ours: one table, by error code and never by HTTP status.

Sources: the errors modelled for Sign and GetPublicKey in the KMS API reference, and AWS's common errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from initiator.errors import Code, HaltError, InitiatorError, RetryError

_UNAVAILABLE = {
    "KeyUnavailableException",
    "DependencyTimeoutException",
    "KMSInternalException",
    "InternalFailure",
    "InternalError",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
    "RequestTimeoutException",
}
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"}
_EXPIRED = {"ExpiredTokenException", "ExpiredToken"}
_CREDENTIALS = {
    "UnrecognizedClientException": "the access key is not known to AWS",
    "InvalidClientTokenId": "the access key is not known to AWS",
    "IncompleteSignature": "the request's signature is incomplete",
    "MissingAuthenticationToken": "the request carried no credentials",
    "InvalidSignatureException": "the request's signature was refused: a wrong secret key, or a clock that is off",
    "RequestExpired": "the request was too old when it arrived: check this machine's clock",
}
_UNUSABLE = {
    "NotFoundException": "there is no such key in this Region and account",
    "DisabledException": "the key is disabled",
    "KMSInvalidStateException": "the key's state does not allow signing (pending deletion or import?)",
    "InvalidKeyUsageException": "the key's usage or spec does not allow ECDSA signing",
    "InvalidGrantTokenException": "the grant token is not valid",
    "ValidationException": "KMS refused the parameters",
    "InvalidArnException": "the key's ARN is not valid",
    "DryRunOperationException": "KMS took the call for a dry run",
}
_FALSE = {Code.SIGNATURE_INVALID, Code.KEY_MISMATCH, Code.KMS_PROTOCOL}
_MENDABLE = {Code.KMS_ACCESS_DENIED, Code.KMS_KEY_UNUSABLE}
_CHAIN_HINT = "AWS's default chain: environment, profile, web identity, Pod Identity, instance role"
EXPIRED_TOKEN_HINT = "the temporary credentials expired and could not be renewed"  # noqa: S105 - a sentence


class TooLateError(RetryError):
    """The deadline came before the answer: that says nothing about KMS."""

    def __init__(self, reason: str) -> None:
        super().__init__(Code.KMS_UNAVAILABLE, reason)


class Kind(Enum):
    """What a failed call says about the Region that was asked."""

    DOWN = auto()  # no answer, an internal error, an answer that cannot be read
    HUNG = auto()  # as DOWN, and it cost a whole timeout
    THROTTLED = auto()
    CREDENTIALS = auto()  # says nothing about the Region
    REFUSED = auto()  # denied, disabled, not there: another Region may still sign
    FALSE = auto()  # an answer in another key's name, or a signature that does not verify: never gone round
    SETTING = auto()


def kind_of(error: BaseException) -> Kind:
    """What went wrong, for whoever has other Regions to go to."""
    code = error.code if isinstance(error, InitiatorError) else None
    if isinstance(error, HaltError):
        if code in _FALSE:
            return Kind.FALSE
        return Kind.SETTING if code is Code.CONFIG_INVALID else Kind.REFUSED
    if code is Code.KMS_THROTTLED:
        return Kind.THROTTLED
    if code is Code.KMS_CREDENTIALS:
        return Kind.CREDENTIALS
    hung = isinstance(error.__cause__, (boto.ReadTimeoutError, boto.ConnectTimeoutError))
    return Kind.HUNG if hung else Kind.DOWN


def combine(failures: Sequence[tuple[str, InitiatorError]], *, named: bool) -> InitiatorError:
    """One error for what went wrong in several Regions: what may pass by itself before what a person must mend.

    Args:
        failures: by Region, in order.
        named: say which Region; where there is but one, its error is left as it is.
    """
    if not named:
        return failures[0][1]
    errors = [error for _, error in failures]
    told = min(errors, key=_rank)
    reason = "; ".join(f"{region}: {error.reason}" for region, error in failures)
    if isinstance(told, RetryError):
        delay_s = min(error.delay_s for error in errors if isinstance(error, RetryError))
        return RetryError(told.code, reason, hint=told.hint, delay_s=delay_s)
    return HaltError(told.code, reason, field=told.field, hint=told.hint)


def _rank(error: InitiatorError) -> int:
    if isinstance(error, RetryError):
        return 1 if error.code is Code.KMS_CREDENTIALS else 0
    return 2 if error.code in _MENDABLE else 3


def _code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: Exception, action: str, key_id: str) -> InitiatorError:
    """Our error for one failed call.

    Args:
        action: the IAM action, such as `kms:Sign`.
        key_id: the key that was named.
    """
    if isinstance(error, boto.ClientError):
        return _from_service(_code(error), action, key_id, error)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return RetryError(Code.KMS_CREDENTIALS, f"{action}: {type(error).__name__}", hint=_CHAIN_HINT, delay_s=2.0)
    if isinstance(error, boto.ParamValidationError):
        return HaltError(Code.CONFIG_INVALID, f"{action}: {type(error).__name__}", field="signer.kms.key_id")
    if isinstance(error, (ResponseParserError, TypeError, ValueError, KeyError)):
        # botocore trips over answers of another form; nothing left the daemon, so asking again is safe
        return RetryError(Code.KMS_PROTOCOL, f"{action}: an answer that cannot be read ({type(error).__name__})")
    # connection refused, reset, timed out, TLS: the call may have signed, but nothing left the daemon
    return RetryError(Code.KMS_UNAVAILABLE, f"{action}: {type(error).__name__}", delay_s=0.25)


def translate_building(error: Exception, index: int | None = None) -> InitiatorError:
    """Our error for a client that could not be made of the settings.

    Args:
        index: which of `signer.kms.regions`, if there is a list.
    """
    at = "signer.kms" if index is None else f"signer.kms.regions.{index}"
    if isinstance(error, boto.NoRegionError):
        return HaltError(Code.CONFIG_INVALID, "no AWS Region is configured", field=f"{at}.region")
    if isinstance(error, boto.ProfileNotFound):
        return HaltError(Code.CONFIG_INVALID, "there is no such AWS profile", field="signer.kms.profile")
    if isinstance(error, ValueError):
        return HaltError(Code.CONFIG_INVALID, "expected a URL with its scheme", field=f"{at}.endpoint_url")
    return HaltError(Code.CONFIG_INVALID, f"no client can be made: {type(error).__name__}", field=at)


def translate_loading(error: Exception) -> InitiatorError:
    """Our error for credentials that could not be resolved."""
    if isinstance(error, InitiatorError):
        return error
    if isinstance(error, boto.ProfileNotFound):
        return translate_building(error)
    return RetryError(
        Code.KMS_CREDENTIALS, f"credentials cannot be resolved: {type(error).__name__}", hint=_CHAIN_HINT, delay_s=2.0
    )


def _from_service(code: str, action: str, key_id: str, error: boto.ClientError) -> InitiatorError:
    text = f"{action} on {key_id}: {code or 'no error code'}"
    if code in _UNAVAILABLE:
        return RetryError(Code.KMS_UNAVAILABLE, text, delay_s=0.25)
    if code in _THROTTLED:
        hint = "raise the account's quota for ECC operations, or lower the rate of requests"
        return RetryError(Code.KMS_THROTTLED, text, hint=hint, delay_s=0.5)
    if code in _EXPIRED:
        return RetryError(Code.KMS_CREDENTIALS, text, hint=EXPIRED_TOKEN_HINT, delay_s=1.0)
    if code in _CREDENTIALS:
        return RetryError(Code.KMS_CREDENTIALS, f"{text}: {_CREDENTIALS[code]}", hint=_skew_hint(error), delay_s=5.0)
    if code.startswith("AccessDenied"):
        hint = f"grant {action} on this key in the IAM policy of the daemon's role and in the key policy"
        return HaltError(Code.KMS_ACCESS_DENIED, text, field="signer.kms.key_id", hint=hint)
    if code in _UNUSABLE:
        return HaltError(Code.KMS_KEY_UNUSABLE, f"{text}: {_UNUSABLE[code]}", field="signer.kms.key_id")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status >= 500 or not code:
        return RetryError(Code.KMS_UNAVAILABLE, text, delay_s=0.25)
    return HaltError(Code.KMS_KEY_UNUSABLE, text, field="signer.kms.key_id", hint="see the KMS documentation")


def _skew_hint(error: boto.ClientError) -> str | None:
    """AWS's own clock, where a signature was refused for its time."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return f"AWS's clock says {date}" if date else None
