"""A client on gmqtt, a codec of its own on asyncio: whatever CONNECT the test asks for, over plain TCP.

usage: gmqtt_device.py HOST PORT
"""

import asyncio
import json
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from talk import tell, tell_message

HOST, PORT = sys.argv[1], int(sys.argv[2])
VERSIONS = {"3.1.1": MQTTv311, "5": MQTTv50}
# What tests call a property, and what gmqtt does.
NAMES = {
    "session_expiry": "session_expiry_interval",
    "message_expiry": "message_expiry_interval",
    "will_delay": "will_delay_interval",
    "response_topic": "response_topic",
    "correlation": "correlation_data",
    "content_type": "content_type",
    "identifier": "subscription_identifier",
    "user": "user_property",
}

client = None


def properties(named):
    made = {}
    for name, value in (named or {}).items():
        if name == "user":
            value = [tuple(pair) for pair in value]
        if name == "correlation":
            value = value.encode()
        made[NAMES[name]] = value
    return made


def heard(_client, topic, payload, qos, said):
    named = {name: said[theirs] for name, theirs in NAMES.items() if said.get(theirs)}
    # It keeps what may come once in a list as well.
    for name, value in named.items():
        if name != "user" and isinstance(value, (list, tuple)):
            named[name] = value[0]
    if isinstance(named.get("correlation"), bytes):
        named["correlation"] = named["correlation"].decode()
    tell_message(topic, payload, qos, retain=bool(said.get("retain")), properties=named)


async def connect(client_id, version="3.1.1", keep_alive=60, clean=True, will=None, properties_=None):
    global client
    message = None
    if will:
        said = properties(will.pop("properties", None))
        message = gmqtt.Message(will.pop("topic"), will.pop("payload"), **will, **said)
    client = gmqtt.Client(client_id, clean_session=clean, will_message=message, **properties(properties_))
    client.set_config({"reconnect_retries": 0})
    client.on_connect = lambda _c, flags, rc, _p: tell("connected", reason=str(rc), refused=rc != 0, resumed=bool(flags & 1))
    client.on_message = heard
    client.on_disconnect = lambda _c, packet, exc=None: tell("disconnected", reason=str(packet))
    client.on_subscribe = lambda _c, _mid, qos, _p: tell("subscribed", reasons=[str(one) for one in qos])
    client.on_unsubscribe = lambda _c, _mid, *_: tell("unsubscribed")
    await client.connect(HOST, PORT, keepalive=keep_alive, version=VERSIONS[version])


async def subscribe(topic, qos=1, no_local=False, retain_as_published=False, retain_handling=0, properties_=None):
    said = properties(properties_)
    identifier = said.pop("subscription_identifier", None)
    subscription = gmqtt.Subscription(
        topic,
        qos=qos,
        no_local=no_local,
        retain_as_published=retain_as_published,
        retain_handling_options=retain_handling,
        **({"subscription_identifier": identifier} if identifier else {}),
    )
    client.subscribe(subscription)


async def publish(topic, payload, qos=1, retain=False, properties_=None):
    client.publish(topic, payload, qos=qos, retain=retain, **properties(properties_))
    # It tells nobody of an acknowledgement, but keeps what has none.
    await client._persistent_storage.wait_empty()
    tell("published", reason="Success")


async def unsubscribe(topic):
    client.unsubscribe(topic)


async def disconnect():
    await client.disconnect()


COMMANDS = {
    "connect": connect,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "publish": publish,
    "disconnect": disconnect,
}


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            await COMMANDS[command.pop("do")](**command)
        except Exception as error:  # whatever the library throws is what the test wants to see
            tell("error", error=repr(error))


asyncio.run(main())
