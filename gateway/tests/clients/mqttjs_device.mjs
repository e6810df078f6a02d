// A client on mqtt.js: whatever CONNECT the test asks for, over TLS unless CA is empty. Commands and events are those of
// talk.py.
//
// usage: node mqttjs_device.mjs MODULES_DIRECTORY HOST PORT CA [CERTIFICATE KEY]

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, host, port, ca, certificate, key] = process.argv.slice(2);
const mqtt = createRequire(`${modules}/`)("mqtt");
const VERSIONS = { "3.1": [3, "MQIsdp"], "3.1.1": [4, "MQTT"], 5: [5, "MQTT"] };
// What tests call a property, and what mqtt.js does.
const NAMES = {
  session_expiry: "sessionExpiryInterval",
  topic_alias_maximum: "topicAliasMaximum",
  topic_alias: "topicAlias",
  message_expiry: "messageExpiryInterval",
  will_delay: "willDelayInterval",
  response_topic: "responseTopic",
  correlation: "correlationData",
  content_type: "contentType",
  identifier: "subscriptionIdentifier",
  user: "userProperties",
};

let client;

const tell = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));

function properties(named = {}) {
  const made = {};
  for (const [name, value] of Object.entries(named)) {
    if (name === "user") made[NAMES[name]] = Object.fromEntries(value);
    else if (name === "correlation") made[NAMES[name]] = Buffer.from(value);
    else made[NAMES[name]] = value;
  }
  return made;
}

function heard(topic, payload, packet) {
  const said = {};
  for (const [name, theirs] of Object.entries(NAMES)) {
    const value = packet.properties?.[theirs];
    if (value === undefined) continue;
    if (name === "user") said[name] = Object.entries(value);
    else said[name] = name === "correlation" ? value.toString() : value;
  }
  const payload_base64 = payload.toString("base64");
  tell("message", { topic, qos: packet.qos, retain: packet.retain, payload_base64, properties: said });
}

const commands = {
  connect({
    client_id,
    username,
    password,
    version = "3.1.1",
    keep_alive = 120,
    websocket = false,
    clean = true,
    will,
    properties_,
  }) {
    const [protocolVersion, protocolId] = VERSIONS[version];
    const tls = ca && {
      ca: readFileSync(ca),
      cert: certificate && readFileSync(certificate),
      key: key && readFileSync(key),
    };
    const is5 = protocolVersion === 5;
    client = mqtt.connect({
      protocol: websocket ? "wss" : tls ? "mqtts" : "mqtt",
      path: "/mqtt",
      wsOptions: tls && { ca: tls.ca },
      host,
      port: Number(port),
      ...tls,
      clientId: client_id,
      username,
      password,
      protocolVersion,
      protocolId,
      keepalive: keep_alive,
      clean,
      will: will && { ...will, properties: is5 ? properties(will.properties) : undefined },
      properties: is5 ? properties(properties_) : undefined,
      reconnectPeriod: 0,
    });
    client.on("connect", (packet) =>
      tell("connected", { reason: "Success", refused: false, resumed: packet.sessionPresent }),
    );
    client.on("error", (error) => tell("connected", { reason: error.message, refused: true }));
    client.on("close", () => tell("disconnected"));
    client.on("message", heard);
  },
  subscribe({ topic, qos = 1, no_local, retain_as_published, retain_handling, properties_ }) {
    const options = { qos, nl: no_local, rap: retain_as_published, rh: retain_handling };
    if (properties_) options.properties = properties(properties_);
    client.subscribe(topic, options, (error, granted) =>
      tell("subscribed", { reasons: (granted ?? []).map((one) => String(one.qos)), error: error?.message }),
    );
  },
  unsubscribe({ topic }) {
    client.unsubscribe(topic, (error) => tell("unsubscribed", { error: error?.message }));
  },
  publish({ topic, payload, qos = 1, retain = false, properties_ }) {
    client.publish(topic, payload, { qos, retain, properties: properties_ && properties(properties_) }, (error) =>
      tell("published", { reason: error?.message ?? "Success" }),
    );
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
