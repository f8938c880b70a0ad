// MQTT.js: takes steps as JSON lines on standard input, answers each with a JSON line. See ../README.md.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'

const connections = new Map()

function connect(step) {
  const v5 = step.version === '5.0'
  const client = mqtt.connect(step.url, {
    protocolVersion: v5 ? 5 : 4,
    clientId: step.client_id,
    username: step.user,
    password: step.password,
    clean: !step.persistent,
    properties: v5 ? { sessionExpiryInterval: step.persistent ? 3600 : 0 } : undefined,
    will: step.will,
    ca: step.ca && readFileSync(step.ca),
    cert: step.cert && readFileSync(step.cert),
    key: step.key && readFileSync(step.key),
    reconnectPeriod: 0,
  })
  const messages = []
  client.on('message', (topic, payload, { qos, retain }) => messages.push({ topic, payload: payload.toString(), qos, retain }))
  return new Promise((resolve, reject) => {
    client.on('connect', ({ sessionPresent }) => resolve({ client, messages, sessionPresent }))
    client.on('error', reject)
    client.on('close', () => reject(new Error('the connection was closed')))
  })
}

const perform = {
  async connect(step) {
    const connection = await connect(step)
    connections.set(step.conn, connection)
    const granted = []
    for (const { topic, qos } of step.subscribe) {
      granted.push((await connection.client.subscribeAsync(topic, { qos }))[0].qos)
    }
    return { ok: true, session_present: connection.sessionPresent, granted }
  },
  async publish({ conn, topic, payload, qos, retain }) {
    await connections.get(conn).client.publishAsync(topic, payload, { qos, retain })
    return { ok: true }
  },
  async receive({ conn, count, seconds }) {
    const { messages } = connections.get(conn)
    const until = Date.now() + seconds * 1000
    while (messages.length < count && Date.now() < until) await sleep(5)
    return { ok: true, messages: messages.splice(0, count) }
  },
  async disconnect({ conn }) {
    await connections.get(conn).client.endAsync()
    connections.delete(conn)
    return { ok: true }
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line)
  let answer
  try {
    answer = await perform[step.op](step)
  } catch (error) {
    // A refusal has its number as code; what the operating system says has a word there.
    answer = { ok: false, code: Number.isInteger(error.code) ? error.code : null, error: String(error) }
  }
  console.log(JSON.stringify(answer))
}
process.exit(0)
