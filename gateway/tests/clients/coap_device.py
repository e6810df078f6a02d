"""A device on aiocoap: registers, takes what waits, says so, sends a file, reads a message.

Arguments: the gateway's address and port, the node id, a file to send; with a key behind them all of it goes over DTLS by
tinydtls, and nothing names a registration. Prints what came of it as one JSON object.
"""

import asyncio
import hashlib
import json
import sys

from aiocoap import GET, POST, PUT, Context, Message


async def main(gateway: str, node: str, path: str, key: str = "") -> None:
    context = await Context.create_client_context(transports=["tinydtls"] if key else None)
    scheme = "coaps" if key else "coap"
    if key:
        shown = {"dtls": {"psk": {"ascii": key}, "client-identity": {"ascii": node}}}
        context.client_credentials.load_from_dict({f"coaps://{gateway}/*": shown})

    async def ask(code, resource, payload=b"", **query):
        arguments = "&".join(f"{key}={value}" for key, value in query.items())
        uri = f"{scheme}://{gateway}/{resource}?{arguments}"
        return await context.request(Message(code=code, uri=uri, payload=payload)).response

    registered = await ask(POST, "rd", ep=node)
    mine = {} if key else {"rd": registered.opt.location_path[1]}
    told = json.loads((await ask(GET, "t", **mine)).payload)
    transfer = told["transfer"]
    content = (await ask(GET, f"r/{transfer}", **mine)).payload
    done = await ask(POST, f"t/{transfer}", b'{"state":"done"}', **mine)
    with open(path, "rb") as file:
        sent = file.read()
    digest = hashlib.sha256(sent).hexdigest()
    stored = await ask(PUT, "u/by-aiocoap", sent, **mine, size=len(sent), sha256=digest)
    command = json.loads((await ask(GET, "c", **mine)).payload)
    watch = "&".join(f"{name}={value}" for name, value in mine.items())
    watched = context.request(Message(code=GET, uri=f"{scheme}://{gateway}/c?{watch}", observe=0))
    first = json.loads((await watched.response).payload)
    print(
        json.dumps(
            {
                "told": told,
                "sha256": hashlib.sha256(content).hexdigest(),
                "done": str(done.code),
                "stored": str(stored.code),
                "command": command,
                "watched": first,
            }
        )
    )
    await context.shutdown()


asyncio.run(main(*sys.argv[1:]))
