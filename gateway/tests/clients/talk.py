"""What the programs here share: commands come as JSON lines on standard input, events leave the same way.

A command is {"do": .., ..}; an event is {"event": .., ..}. The end of the input ends the program.
"""

import base64
import json
import os
import sys
import threading

_writing = threading.Lock()


def tell(event, **fields):
    """Prints an event; what is no JSON is shown as text."""
    line = json.dumps({"event": event, **fields}, default=str)
    with _writing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def tell_message(topic, payload, qos, **fields):
    """Prints a message that arrived."""
    payload = payload.encode() if isinstance(payload, str) else bytes(payload)
    tell("message", topic=topic, qos=qos, payload_base64=base64.b64encode(payload).decode(), **fields)


def obey(commands):
    """Carries out commands, each by its function, until there are no more."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            commands[command.pop("do")](**command)
        except Exception as error:  # whatever a library throws is what the test wants to see
            tell("error", error=repr(error))
    # Libraries leave threads behind that would keep the program alive.
    sys.stdout.flush()
    os._exit(0)
