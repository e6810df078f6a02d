"""A device on the AWS IoT SDK, which knows itself by its certificate alone.

usage: aws_device.py HOST PORT CA CERTIFICATE KEY
"""

import sys

from awscrt import mqtt
from awsiot import mqtt_connection_builder

from talk import obey, tell, tell_message

HOST, PORT, CA, CERTIFICATE, KEY = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]

connection = None


def connect(client_id):
    global connection
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint=HOST,
        port=PORT,
        ca_filepath=CA,
        cert_filepath=CERTIFICATE,
        pri_key_filepath=KEY,
        client_id=client_id,
        clean_session=True,
        keep_alive_secs=30,
    )
    attempt = connection.connect()
    attempt.add_done_callback(connected)


def connected(attempt):
    error = attempt.exception()
    tell("connected", reason=str(error or "Success"), refused=error is not None)


def subscribe(topic, qos=1):
    def on_message(topic, payload, dup, qos, retain, **_more):
        tell_message(topic, payload, int(qos))

    done, _id = connection.subscribe(topic, mqtt.QoS(qos), on_message)
    done.add_done_callback(lambda done: tell("subscribed", reasons=[str(done.exception() or "granted")]))


def publish(topic, payload, qos=1):
    done, _id = connection.publish(topic, payload, mqtt.QoS(qos))
    done.add_done_callback(lambda done: tell("published", reason=str(done.exception() or "Success")))


obey({"connect": connect, "subscribe": subscribe, "publish": publish, "disconnect": lambda: connection.disconnect()})
