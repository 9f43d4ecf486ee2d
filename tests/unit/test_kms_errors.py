"""The table of KMS's errors: by code, never by HTTP status, and what the reader is told."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto

from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms import errors
from initiator.kms.errors import Kind


def service(code: str, status: int = 400, **headers: str) -> boto.ClientError:
    response: Any = {"Error": {"Code": code, "Message": "secret text"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    response["ResponseMetadata"]["HTTPHeaders"] = headers
    return boto.ClientError(response, "Sign")


TABLE: list[tuple[Exception, type[InitiatorError], Code]] = [
    (service("ThrottlingException", 400), RetryError, Code.KMS_THROTTLED),
    (service("ThrottlingException", 500), RetryError, Code.KMS_THROTTLED),
    (service("KMSInternalException", 400), RetryError, Code.KMS_UNAVAILABLE),
    (service("", 400), RetryError, Code.KMS_UNAVAILABLE),
    (service("New", 503), RetryError, Code.KMS_UNAVAILABLE),
    (service("New", 400), HaltError, Code.KMS_KEY_UNUSABLE),
    (service("ExpiredTokenException", 400), RetryError, Code.KMS_CREDENTIALS),
    (service("UnrecognizedClientException"), RetryError, Code.KMS_CREDENTIALS),
    (service("RequestExpired"), RetryError, Code.KMS_CREDENTIALS),
    (service("AccessDenied"), HaltError, Code.KMS_ACCESS_DENIED),
    (service("AccessDeniedException", 500), HaltError, Code.KMS_ACCESS_DENIED),
    (boto.NoCredentialsError(), RetryError, Code.KMS_CREDENTIALS),
    (boto.CredentialRetrievalError(provider="p", error_msg="secret text"), RetryError, Code.KMS_CREDENTIALS),
    (boto.EndpointConnectionError(endpoint_url="u"), RetryError, Code.KMS_UNAVAILABLE),
    (boto.ReadTimeoutError(endpoint_url="u"), RetryError, Code.KMS_UNAVAILABLE),
    (boto.SSLError(endpoint_url="u", error=OSError("secret text")), RetryError, Code.KMS_UNAVAILABLE),
    (boto.ParamValidationError(report="secret text"), HaltError, Code.CONFIG_INVALID),
    (ValueError("secret text"), RetryError, Code.KMS_PROTOCOL),
    (TypeError("secret text"), RetryError, Code.KMS_PROTOCOL),
    (OSError("secret text"), RetryError, Code.KMS_UNAVAILABLE),
]


@pytest.mark.parametrize(("error", "kind", "code"), TABLE)
def test_each_error_has_one_meaning_and_repeats_no_text_of_a_library(
    error: Exception, kind: type[InitiatorError], code: Code
) -> None:
    found = errors.translate(error, "kms:Sign", "key-1")
    assert (type(found), found.code) == (kind, code)
    assert "kms:Sign" in found.reason
    assert "secret text" not in f"{found} {found.hint}"


def test_a_denied_call_names_the_permission_and_the_key() -> None:
    found = errors.translate(service("AccessDeniedException"), "kms:GetPublicKey", "key-1")
    assert found.field == "signer.kms.key_id"
    assert "key-1" in found.reason
    assert "grant kms:GetPublicKey" in (found.hint or "")


def test_a_refused_signature_shows_awss_clock() -> None:
    found = errors.translate(service("InvalidSignatureException", 403, date="Sat, 01 Jan 2050 00:00:00 GMT"), "a", "k")
    assert "clock" in found.reason
    assert "2050" in (found.hint or "")


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (boto.NoRegionError(), "signer.kms.region"),
        (boto.ProfileNotFound(profile="p"), "signer.kms.profile"),
        (ValueError("Invalid endpoint"), "signer.kms.endpoint_url"),
        (boto.UnknownServiceError(service_name="kms", known_service_names=[]), "signer.kms"),
    ],
)
def test_a_client_that_cannot_be_made_names_the_setting(error: Exception, field: str) -> None:
    found = errors.translate_building(error)
    assert (type(found), found.code, found.field) == (HaltError, Code.CONFIG_INVALID, field)


def test_a_client_of_a_list_names_its_place() -> None:
    assert errors.translate_building(ValueError("x"), 1).field == "signer.kms.regions.1.endpoint_url"


KINDS = [
    (service("KMSInternalException"), Kind.DOWN),
    (service("New", 503), Kind.DOWN),
    (boto.EndpointConnectionError(endpoint_url="u"), Kind.DOWN),
    (ValueError("an answer of another form"), Kind.DOWN),
    (boto.ReadTimeoutError(endpoint_url="u"), Kind.HUNG),
    (boto.ConnectTimeoutError(endpoint_url="u"), Kind.HUNG),
    (service("ThrottlingException"), Kind.THROTTLED),
    (service("ExpiredTokenException"), Kind.CREDENTIALS),
    (boto.NoCredentialsError(), Kind.CREDENTIALS),
    (service("AccessDeniedException"), Kind.REFUSED),
    (service("DisabledException"), Kind.REFUSED),
    (boto.ParamValidationError(report="r"), Kind.SETTING),
]


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_each_error_says_something_of_the_region_that_was_asked(error: Exception, kind: Kind) -> None:
    with pytest.raises(InitiatorError) as ours:
        raise errors.translate(error, "kms:Sign", "k") from error
    assert errors.kind_of(ours.value) is kind


@pytest.mark.parametrize("code", [Code.SIGNATURE_INVALID, Code.KEY_MISMATCH, Code.KMS_PROTOCOL])
def test_a_false_answer_is_no_outage(code: Code) -> None:
    assert errors.kind_of(HaltError(code, "r")) is Kind.FALSE


DOWN = RetryError(Code.KMS_UNAVAILABLE, "down", delay_s=2.0)
EXPIRED = RetryError(Code.KMS_CREDENTIALS, "expired", hint="h", delay_s=1.0)
DENIED = HaltError(Code.KMS_ACCESS_DENIED, "denied", field="f", hint="g")
OTHER = HaltError(Code.KEY_MISMATCH, "other")


@pytest.mark.parametrize(
    ("failures", "kind", "code"),
    [
        ([DENIED, EXPIRED, DOWN], RetryError, Code.KMS_UNAVAILABLE),
        ([OTHER, DENIED, EXPIRED], RetryError, Code.KMS_CREDENTIALS),
        ([OTHER, DENIED], HaltError, Code.KMS_ACCESS_DENIED),
        ([OTHER, OTHER], HaltError, Code.KEY_MISMATCH),
    ],
)
def test_of_several_what_may_pass_by_itself_is_told_first_and_each_with_its_region(
    failures: list[InitiatorError], kind: type[InitiatorError], code: Code
) -> None:
    found = errors.combine([(f"r{index}", error) for index, error in enumerate(failures)], named=True)
    assert (type(found), found.code) == (kind, code)
    assert found.reason == "; ".join(f"r{index}: {error.reason}" for index, error in enumerate(failures))
    delays = [error.delay_s for error in failures if isinstance(error, RetryError)]
    assert getattr(found, "delay_s", None) == (min(delays) if delays else None)


def test_a_single_regions_error_is_left_as_it_is() -> None:
    assert errors.combine([("r", DENIED)], named=False) is DENIED


def test_loading_keeps_our_own_errors_and_takes_all_others_for_credentials() -> None:
    own = HaltError(Code.CONFIG_INVALID, "cannot be read", field="f")
    assert errors.translate_loading(own) is own
    assert errors.translate_loading(boto.ProfileNotFound(profile="p")).code is Code.CONFIG_INVALID
    assert errors.translate_loading(OSError("secret text")).code is Code.KMS_CREDENTIALS
