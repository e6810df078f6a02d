"""A device on python-mbedtls: asks for what waits, once by each suite.

Arguments: the gateway's address and port, then either `psk`, the identity and the key in hexadecimal digits, or
`certificate`, and files with the certificate and its key; then the suites. Prints one JSON object: what each suite was
answered with, in hexadecimal digits, or why there was no answer.
"""

import contextlib
import json
import pathlib
import socket
import sys

from mbedtls import exceptions, pk, tls, x509

# CON, GET, message 1, Uri-Path "t".
REQUEST = bytes.fromhex("40010001b174")
BYTES = 4096


def patiently(call, *arguments):
    """Calls until the library has read and written what it wants to."""
    while True:
        with contextlib.suppress(tls.WantReadError, tls.WantWriteError):
            return call(*arguments)


def ask(gateway: tuple[str, int], configuration: tls.DTLSConfiguration) -> str:
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.settimeout(4)
    with tls.ClientContext(configuration).wrap_socket(plain, server_hostname=None) as device:
        device.connect(gateway)
        patiently(device.do_handshake)
        patiently(device.send, REQUEST)
        answer = patiently(device.recv, BYTES)
        return f"{device.cipher()} {answer.hex()}"


def main(gateway: str, kind: str, first: str, second: str, *suites: str) -> None:
    if kind == "psk":
        shown = {"pre_shared_key": (first, bytes.fromhex(second))}
    else:
        certificate = x509.CRT.from_PEM(pathlib.Path(first).read_text())
        key = pk.ECC.from_PEM(pathlib.Path(second).read_text())
        shown = {"certificate_chain": ((certificate,), key)}
    host, port = gateway.rsplit(":", 1)
    told = {}
    for suite in suites:
        configuration = tls.DTLSConfiguration(
            validate_certificates=False,
            lowest_supported_version=tls.DTLSVersion.DTLSv1_2,
            highest_supported_version=tls.DTLSVersion.DTLSv1_2,
            ciphers=[suite],
            **shown,
        )
        try:
            told[suite] = ask((host, int(port)), configuration)
        except (OSError, exceptions.TLSError) as error:
            told[suite] = f"{type(error).__name__}: {error}"
    print(json.dumps(told))


main(*sys.argv[1:])
