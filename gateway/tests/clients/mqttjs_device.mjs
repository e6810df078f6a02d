// A device on mqtt.js: whatever CONNECT the test asks for. Commands and events are those of talk.py.
//
// usage: node mqttjs_device.mjs MODULES_DIRECTORY HOST PORT CA [CERTIFICATE KEY]

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, host, port, ca, certificate, key] = process.argv.slice(2);
const mqtt = createRequire(`${modules}/`)("mqtt");
const VERSIONS = { "3.1": [3, "MQIsdp"], "3.1.1": [4, "MQTT"], 5: [5, "MQTT"] };

let client;

const tell = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));

const commands = {
  connect({ client_id, username, password, version = "3.1.1", keep_alive = 120, websocket = false }) {
    const [protocolVersion, protocolId] = VERSIONS[version];
    client = mqtt.connect({
      protocol: websocket ? "wss" : "mqtts",
      path: "/mqtt",
      wsOptions: { ca: readFileSync(ca) },
      host,
      port: Number(port),
      ca: readFileSync(ca),
      cert: certificate && readFileSync(certificate),
      key: key && readFileSync(key),
      clientId: client_id,
      username,
      password,
      protocolVersion,
      protocolId,
      keepalive: keep_alive,
      reconnectPeriod: 0,
    });
    client.on("connect", () => tell("connected", { reason: "Success", refused: false }));
    client.on("error", (error) => tell("connected", { reason: error.message, refused: true }));
    client.on("close", () => tell("disconnected"));
    client.on("message", (topic, payload, packet) =>
      tell("message", { topic, qos: packet.qos, payload_base64: payload.toString("base64") }),
    );
  },
  subscribe({ topic, qos = 1 }) {
    client.subscribe(topic, { qos }, (error, granted) =>
      tell("subscribed", { reasons: (granted ?? []).map((one) => String(one.qos)), error: error?.message }),
    );
  },
  publish({ topic, payload, qos = 1 }) {
    client.publish(topic, payload, { qos }, (error) => tell("published", { reason: error?.message ?? "Success" }));
  },
  disconnect() {
    client.end();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { do: name, ...fields } = JSON.parse(line);
    commands[name](fields);
  })
  .on("close", () => process.exit(0));
