"""A device on Eclipse Paho: whatever CONNECT the test asks for.

usage: paho_device.py HOST PORT CA [CERTIFICATE KEY]
"""

import sys

import paho.mqtt.client as mqtt

from talk import obey, tell, tell_message

HOST, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]
CERTIFICATE, KEY = (sys.argv[4], sys.argv[5]) if len(sys.argv) > 5 else (None, None)
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}

client = None


def connect(client_id, username=None, password=None, version="3.1.1", keep_alive=120, websocket=False):
    global client
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=VERSIONS[version],
        transport="websockets" if websocket else "tcp",
        reconnect_on_failure=False,
    )
    if websocket:
        client.ws_set_options(path="/mqtt")
    if username is not None:
        client.username_pw_set(username, password)
    client.tls_set(ca_certs=CA, certfile=CERTIFICATE, keyfile=KEY)
    client.on_connect = lambda _c, _u, _f, reason, _p: tell("connected", reason=str(reason), refused=reason.is_failure)
    client.on_disconnect = lambda _c, _u, _f, reason, _p: tell("disconnected", reason=str(reason))
    client.on_subscribe = lambda _c, _u, _m, reasons, _p: tell("subscribed", reasons=[str(one) for one in reasons])
    client.on_publish = lambda _c, _u, mid, reason, _p: tell("published", id=mid, reason=str(reason))
    client.on_message = lambda _c, _u, message: tell_message(message.topic, message.payload, message.qos)
    client.connect(HOST, PORT, keepalive=keep_alive)
    client.loop_start()


obey(
    {
        "connect": connect,
        "subscribe": lambda topic, qos=1: client.subscribe(topic, qos),
        "publish": lambda topic, payload, qos=1: client.publish(topic, payload, qos),
        "disconnect": lambda: client.disconnect(),
    }
)
