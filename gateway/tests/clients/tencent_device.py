"""A device on Tencent's own SDK, unmodified.

The SDK's host is the product's id and a domain, and its ports are fixed: names are answered here with the address of
the gateway under test. It makes its TLS context for a server's side, which Python let clients use up to 3.9: that is
restored, so that any Python will do.

usage: tencent_device.py DEVICE_INFO_JSON DOMAIN ADDRESS MQTTS_PORT FILES_PORT
"""

import socket
import ssl
import sys

from hub.hub import QcloudHub

from talk import obey, tell, tell_message

DEVICE_INFO, DOMAIN, ADDRESS = sys.argv[1:4]
PORTS = {8883: int(sys.argv[4]), 443: int(sys.argv[5])}
system_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host, port, *rest, **options):
    if isinstance(host, str) and host.endswith(DOMAIN):
        host, port = ADDRESS, PORTS[int(port)]
    return system_getaddrinfo(host, port, *rest, **options)


def create_default_context(purpose=ssl.Purpose.SERVER_AUTH, *, cafile=None, capath=None, cadata=None):
    if purpose is not ssl.Purpose.CLIENT_AUTH:
        return system_default_context(purpose, cafile=cafile, capath=capath, cadata=cadata)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS)
    context.load_verify_locations(cafile, capath, cadata)
    return context


socket.getaddrinfo = getaddrinfo
system_default_context = ssl.create_default_context
ssl.create_default_context = create_default_context

sdk = QcloudHub(DEVICE_INFO, tls=True, domain=DOMAIN)
hub = sdk.hub
hub.setReconnectInterval(1, 1)
hub.registerMqttCallback(
    on_connect=lambda _flags, code, _data: tell("connected", reason=str(code), refused=code != 0),
    on_disconnect=lambda code, _data: tell("disconnected", reason=str(code)),
    on_message=lambda topic, payload, qos, _data: tell_message(topic, payload, qos),
    on_publish=lambda mid, _data: tell("published", id=mid),
    on_subscribe=lambda qos, mid, _data: tell("subscribed", reasons=[str(qos)], id=mid),
    on_unsubscribe=lambda mid, _data: tell("unsubscribed", id=mid),
)


def heard(kind):
    return lambda topic, qos, payload, _data: tell(kind, topic=topic, qos=qos, payload=payload)


def subscribe(topic, qos=1):
    hub.registerUserCallback(topic, lambda topic, qos, payload, _data: tell_message(topic, str(payload), qos))
    hub.subscribe(topic, qos)


def product():
    return hub.getProductID(), hub.getDeviceName()


def rrpc():
    def answer(topic, qos, payload, _data):
        tell("rrpc", topic=topic, payload=payload)
        hub.rrpcReply(*product(), "pong", 4)

    hub.rrpcInit(*product(), answer)


def fetch(version):
    """The SDK's own sample for an update: report, wait for the file, take it, say so."""
    import threading
    import time

    def run():
        hub.otaInit(*product(), heard("ota"))
        time.sleep(0.2)
        hub.otaReportVersion(*product(), version)
        while not hub.otaIsFetching(*product()):
            time.sleep(0.02)
        number = hub_ota_number
        size, _said = number("IOT_OTAG_FILE_SIZE")
        target, _said = hub_ota_string("IOT_OTAG_VERSION", 32)
        if hub.otaDownloadStart(*product(), 0, size) != 0:
            return tell("fetched", ok=False)
        hub.otaResetMd5(*product())
        taken = bytearray()
        while not hub.otaIsFetchFinished(*product()):
            part, length = hub.otaFetchYield(*product(), 5000)
            if length < 0:
                return tell("fetched", ok=False)
            taken += part
            hub.otaMd5Update(*product(), part)
        import hashlib

        hub.otaReportUpgradeSuccess(*product(), None)
        tell("fetched", ok=True, size=len(taken), version=target, md5=hashlib.md5(bytes(taken)).hexdigest())

    threading.Thread(target=run, daemon=True).start()


def hub_ota_number(name):
    from hub.services.ota.ota import Ota

    return hub.otaIoctlNumber(*product(), getattr(Ota.OtaCmdType, name))


def hub_ota_string(name, length):
    from hub.services.ota.ota import Ota

    return hub.otaIoctlString(*product(), getattr(Ota.OtaCmdType, name), length)


obey(
    {
        "connect": lambda: hub.connect(),
        "subscribe": subscribe,
        "publish": lambda topic, payload, qos=1: hub.publish(topic, payload, qos),
        "time": lambda: tell("time", at=hub.getNtpAccurateTime()),
        "broadcast": lambda: hub.broadcastInit(*product(), heard("broadcast")),
        "rrpc": rrpc,
        "fetch": fetch,
        "disconnect": lambda: hub.disconnect(),
    }
)
