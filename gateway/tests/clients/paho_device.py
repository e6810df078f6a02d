"""A client on Eclipse Paho: whatever CONNECT the test asks for, over TLS unless CA is empty.

usage: paho_device.py HOST PORT CA [CERTIFICATE KEY]
"""

import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from talk import obey, tell, tell_message

HOST, PORT, CA = sys.argv[1], int(sys.argv[2]), sys.argv[3]
CERTIFICATE, KEY = (sys.argv[4], sys.argv[5]) if len(sys.argv) > 5 else (None, None)
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
# What tests call a property, and what Paho does.
NAMES = {
    "session_expiry": "SessionExpiryInterval",
    "topic_alias_maximum": "TopicAliasMaximum",
    "topic_alias": "TopicAlias",
    "message_expiry": "MessageExpiryInterval",
    "will_delay": "WillDelayInterval",
    "response_topic": "ResponseTopic",
    "correlation": "CorrelationData",
    "content_type": "ContentType",
    "identifier": "SubscriptionIdentifier",
    "user": "UserProperty",
}

client = None


def properties(kind, named):
    """The properties of a packet; only MQTT 5 has any."""
    if client._protocol != mqtt.MQTTv5 or not named:
        return None
    made = Properties(kind)
    for name, value in named.items():
        if name == "user":
            value = [tuple(pair) for pair in value]
        if name == "correlation":
            value = value.encode()
        setattr(made, NAMES[name], value)
    return made


def heard(message):
    """A message that arrived, with what it says of itself."""
    said = getattr(message, "properties", None)
    named = {name: getattr(said, theirs) for name, theirs in NAMES.items() if hasattr(said, theirs)}
    if "correlation" in named:
        named["correlation"] = named["correlation"].decode()
    tell_message(message.topic, message.payload, message.qos, retain=bool(message.retain), properties=named)


def connect(
    client_id,
    username=None,
    password=None,
    version="3.1.1",
    keep_alive=120,
    websocket=False,
    clean=True,
    will=None,
    properties_=None,
):
    global client
    is_5 = version == "5"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=VERSIONS[version],
        clean_session=None if is_5 else clean,
        transport="websockets" if websocket else "tcp",
        reconnect_on_failure=False,
    )
    if websocket:
        client.ws_set_options(path="/mqtt")
    if username is not None:
        client.username_pw_set(username, password)
    if CA:
        client.tls_set(ca_certs=CA, certfile=CERTIFICATE, keyfile=KEY)
    if will:
        said = properties(PacketTypes.WILLMESSAGE, will.pop("properties", None))
        client.will_set(**will, properties=said)
    client.on_connect = lambda _c, _u, flags, reason, _p: tell(
        "connected", reason=str(reason), refused=reason.is_failure, resumed=flags.session_present
    )
    client.on_disconnect = lambda _c, _u, _f, reason, _p: tell("disconnected", reason=str(reason))
    client.on_subscribe = lambda _c, _u, _m, reasons, _p: tell("subscribed", reasons=[str(one) for one in reasons])
    client.on_unsubscribe = lambda _c, _u, _m, reasons, _p: tell("unsubscribed", reasons=[str(one) for one in reasons])
    client.on_publish = lambda _c, _u, mid, reason, _p: tell("published", id=mid, reason=str(reason))
    client.on_message = lambda _c, _u, message: heard(message)
    more = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, properties_)} if is_5 else {}
    client.connect(HOST, PORT, keepalive=keep_alive, **more)
    client.loop_start()


def subscribe(topic, qos=1, no_local=False, retain_as_published=False, retain_handling=0, properties_=None):
    if client._protocol != mqtt.MQTTv5:
        client.subscribe(topic, qos)
        return
    options = SubscribeOptions(qos, no_local, retain_as_published, retain_handling)
    client.subscribe(topic, options=options, properties=properties(PacketTypes.SUBSCRIBE, properties_))


def publish(topic, payload, qos=1, retain=False, properties_=None):
    client.publish(topic, payload, qos, retain, properties=properties(PacketTypes.PUBLISH, properties_))


obey(
    {
        "connect": connect,
        "subscribe": subscribe,
        "unsubscribe": lambda topic: client.unsubscribe(topic),
        "publish": publish,
        "disconnect": lambda: client.disconnect(),
    }
)
