"""Encryption of the port: a certificate and its key, from two files."""

import ssl
from pathlib import Path

from oracle_hub.errors import ConfigError

CERTIFICATE, KEY = "server.tls_certificate", "server.tls_key"


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """What a server needs to encrypt: TLS 1.2 and later.

    Args:
        certificate: PEM file with the certificate, and those between it and the root after it.
        key: PEM file with its private key, without a passphrase.

    Raises:
        ConfigError: a file is missing, cannot be read or is no PEM, the key has a passphrase, or is another's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load(context, certificate, key)
    return context


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Put a certificate and its key into a context; connections that are made from now on use it.

    Raises:
        ConfigError: as :func:`server_context`. The context may then be of no use.
    """
    for name, path in ((CERTIFICATE, certificate), (KEY, key)):
        try:
            text = Path(path).read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"{name}: {path}: no such file") from None
        except OSError as error:
            raise ConfigError(f"{name}: {path}: cannot be read ({error.strerror})") from None
        wanted = b"CERTIFICATE-----" if name == CERTIFICATE else b"PRIVATE KEY-----"
        if b"-----BEGIN " not in text or wanted not in text:
            what = "certificate" if name == CERTIFICATE else "private key"
            raise ConfigError(f"{name}: {path}: holds no {what} in PEM")
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _PassphraseError:
        raise ConfigError(f"{KEY}: {key}: has a passphrase; a hub that starts by itself needs it without") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{KEY}: {key}: is not the key of the certificate in {certificate}") from None
        why = (error.reason or "bad PEM").lower().replace("_", " ")
        raise ConfigError(f"{CERTIFICATE}, {KEY}: {certificate} and {key} cannot be used ({why})") from None


class _PassphraseError(Exception):
    pass


def _no_passphrase() -> str:
    raise _PassphraseError  # else OpenSSL would ask for it at the terminal, and wait
