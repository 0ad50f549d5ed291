"""TLS for HTTP/2: RFC 9113, section 9.2."""

import ssl

from tunstack.errors import ConfigError
from tunstack.rpc.channel import Keys

ALPN = "h2"

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: what appendix A of RFC 9113 leaves; TLS 1.3 has only such."""


def client_context(authorities: bytes | None) -> ssl.SSLContext:
    """Make what a client needs.

    Args:
        authorities: PEM of those to trust; ``None`` means the system's.

    Raises:
        ConfigError: that is not PEM.
    """
    try:
        cadata = None if authorities is None else authorities.decode("ascii")
        context = ssl.create_default_context(cadata=cadata)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"the authorities to trust are not PEM: {exc}") from exc
    # Python 3.13 is strict about extensions that the certificates people make for
    # themselves lack; grpcio, curl and Go are not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return _for_http2(context)


def server_context(keys: Keys) -> ssl.SSLContext:
    """Make what a server needs.

    Raises:
        ConfigError: a file cannot be read, or they are not a certificate and its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(keys.certificate, keys.key)
    except ssl.SSLError as exc:
        text = f"{keys.certificate} and {keys.key} are not a certificate and its key: {exc}"
        raise ConfigError(text) from exc
    except OSError as exc:
        text = f"{keys.certificate} or {keys.key} cannot be read: {exc.strerror}"
        raise ConfigError(text) from exc
    return _for_http2(context)


def _for_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    return context
