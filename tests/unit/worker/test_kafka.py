"""What Kafka clients are given to connect with."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.kafka import KafkaConfig

# Self-signed and used nowhere else; made with `openssl req -x509 -newkey ec -nodes`.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUVl/8l9IcyXGJWgMvPjcY3flaspAwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOc29ydGltZW50LXRlc3QwIBcNMjYxMTIxMDM0NjEyWhgPMjEy
NjEwMjgwMzQ2MTJaMBkxFzAVBgNVBAMMDnNvcnRpbWVudC10ZXN0MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEvuHjKKEZvY9xMtR6sI8RCr+4tP5W5TWM6kf5Zxbi
qg+Ho+85NcOciWHyGg9eaUw/PmuxCPVH2vgX3oS5N8veW6NTMFEwHQYDVR0OBBYE
FKICwaIyWIvNxCBx5DPxkkkj7NqnMB8GA1UdIwQYMBaAFKICwaIyWIvNxCBx5DPx
kkkj7NqnMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgbobhOxZp
AqaZgevLwUCvFmDym5G6tiprMo7azKLbKp4CIEY1PvJY1TyDNUQFQHzyHhT/dgPZ
6+7b3hWsVvjGk230
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjvNjYfK006OyCT21
Aj7EE3WHl7OEwxM11jKVYSKzD82hRANCAAS+4eMooRm9j3Ey1HqwjxEKv7i0/lbl
NYzqR/lnFuKqD4ej7zk1w5yJYfIaD15pTD8+a7EI9Ufa+BfehLk3y95b
-----END PRIVATE KEY-----
"""


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return str(path)


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_text(KEY)
    return str(path)


def test_plaintext_is_an_address_and_nothing_else() -> None:
    config = KafkaConfig(bootstrap_servers="a:1, b:2")

    assert config.client_kwargs() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_sasl_over_plaintext_gives_mechanism_user_and_password() -> None:
    config = KafkaConfig(
        bootstrap_servers="a:1",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="user",
        sasl_password="secret",
    )

    assert config.client_kwargs() == {
        "bootstrap_servers": ["a:1"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "user",
        "sasl_plain_password": "secret",
    }


def test_the_password_is_not_in_the_repr() -> None:
    assert "secret" not in repr(KafkaConfig(bootstrap_servers="a:1", sasl_password="secret"))


def test_tls_trusts_the_given_authority_and_checks_the_host(certificate: str) -> None:
    config = KafkaConfig(bootstrap_servers="a:1", security_protocol="SSL", ssl_cafile=certificate)

    context = config.client_kwargs()["ssl_context"]

    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_tls_without_host_check_still_checks_the_certificate(certificate: str) -> None:
    config = KafkaConfig(
        bootstrap_servers="a:1",
        security_protocol="SASL_SSL",
        ssl_cafile=certificate,
        ssl_check_hostname=False,
    )

    context = config.client_kwargs()["ssl_context"]

    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_client_certificate_is_loaded_with_its_key(certificate: str, key: str) -> None:
    config = KafkaConfig(
        bootstrap_servers="a:1",
        security_protocol="SSL",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )

    assert isinstance(config.client_kwargs()["ssl_context"], ssl.SSLContext)


def test_a_key_that_is_none_names_both_files(certificate: str) -> None:
    config = KafkaConfig(
        bootstrap_servers="a:1",
        security_protocol="SSL",
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
    )

    with pytest.raises(ConfigError, match="SORTIMENT_SSL_CERTFILE and SORTIMENT_SSL_KEYFILE"):
        config.client_kwargs()


def test_an_authority_file_without_certificates_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    config = KafkaConfig(bootstrap_servers="a:1", security_protocol="SSL", ssl_cafile=str(empty))

    with pytest.raises(ConfigError, match="SORTIMENT_SSL_CAFILE"):
        config.client_kwargs()
