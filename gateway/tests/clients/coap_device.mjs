// A device on node-coap: registers, takes what waits, says so, sends a file, watches messages.
//
// usage: node coap_device.mjs PACKAGE_JSON HOST PORT NODE FILE OWN_PORT
// Prints what came of it as one JSON object.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, host, port, node, path, own] = process.argv.slice(2);
const coap = createRequire(modules)("coap");
// The library leaves its socket when nothing is under way; another port would be another address.
const agent = new coap.Agent({ type: "udp4", port: Number(own) });

function ask(method, pathname, query, { body, observe = false, options = {} } = {}) {
  const request = coap.request({ agent, host, port: Number(port), method, pathname, query, observe, retrySend: 4 });
  for (const [name, value] of Object.entries(options)) request.setOption(name, value);
  return new Promise((resolve, reject) => {
    request.on("response", resolve);
    request.on("error", reject);
    request.end(body);
  });
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const location = (response) => response.options.filter((o) => o.name === "Location-Path").map((o) => o.value.toString());

const registered = await ask("POST", "/rd", `ep=${node}`);
const rd = location(registered).join("/").split("/").pop();
const told = JSON.parse((await ask("GET", "/t", `rd=${rd}`)).payload);
// The library puts the blocks together.
const content = (await ask("GET", `/r/${told.transfer}`, `rd=${rd}`)).payload;
const done = await ask("POST", `/t/${told.transfer}`, `rd=${rd}`, { body: '{"state":"done"}' });

const sent = readFileSync(path);
const query = `rd=${rd}&sha256=${sha256(sent)}&size=${sent.length}`;
const stored = await ask("PUT", "/u/by-node", query, { body: sent, options: { Block1: Buffer.from([0x6]) } });

const watched = await ask("GET", "/c", `rd=${rd}`, { observe: true });
const commands = [];
for await (const body of watched) {
  commands.push(JSON.parse(body).payload);
  if (commands.length === 2) break;
}
console.log(JSON.stringify({ told, sha256: sha256(content), done: done.code, stored: stored.code, commands }));
agent.close();
process.exit(0);
