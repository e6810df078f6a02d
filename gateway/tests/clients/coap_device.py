"""A device on aiocoap: registers, takes what waits, says so, sends a file, reads a message.

Arguments: the gateway's address and port, the node id, a file to send. Prints what came of it as one JSON object.
"""

import asyncio
import hashlib
import json
import sys

from aiocoap import GET, POST, PUT, Context, Message


async def main(gateway: str, node: str, path: str) -> None:
    context = await Context.create_client_context()

    async def ask(code, resource, payload=b"", **query):
        arguments = "&".join(f"{key}={value}" for key, value in query.items())
        uri = f"coap://{gateway}/{resource}?{arguments}"
        return await context.request(Message(code=code, uri=uri, payload=payload)).response

    registered = await ask(POST, "rd", ep=node)
    rd = registered.opt.location_path[1]
    told = json.loads((await ask(GET, "t", rd=rd)).payload)
    transfer = told["transfer"]
    content = (await ask(GET, f"r/{transfer}", rd=rd)).payload
    done = await ask(POST, f"t/{transfer}", b'{"state":"done"}', rd=rd)
    with open(path, "rb") as file:
        sent = file.read()
    digest = hashlib.sha256(sent).hexdigest()
    stored = await ask(PUT, "u/by-aiocoap", sent, rd=rd, size=len(sent), sha256=digest)
    command = json.loads((await ask(GET, "c", rd=rd)).payload)
    watched = context.request(
        Message(code=GET, uri=f"coap://{gateway}/c?rd={rd}", observe=0)
    )
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
