// A js-libp2p node for the tests: it does what it is told on standard input, a line of JSON
// each, and answers on standard output.  tests/interop/stock_peer.py does the same.

import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [ECHO, SIZE, BREAK, MUTE] = ['echo', 'size', 'break', 'mute'].map(name => `/interop/${name}/1`)
const PIECE = 64 * 1024
const STALL_MS = 1000

// The same bytes as tests.contracts.conversations.pattern: a lost or swapped piece shows.
const pattern = size => {
  const made = Buffer.alloc(Math.ceil(size / 4) * 4)
  for (let at = 0; at < made.length; at += 4) made.writeUInt32BE(at / 4, at)
  return made.subarray(0, size)
}

const readAll = async stream => {
  const pieces = []
  for await (const piece of stream) pieces.push(piece.subarray())
  return Buffer.concat(pieces)
}

const send = async (stream, data, sent = () => {}) => {
  for (let at = 0; at < data.length; at += PIECE) {
    const piece = data.subarray(at, at + PIECE)
    if (!stream.send(piece)) await stream.onDrain()
    sent(piece.length)
  }
}

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})

const muted = []
const limits = { maxInboundStreams: 256, maxOutboundStreams: 256 }

await node.handle(ECHO, async stream => {
  for await (const piece of stream) {
    if (!stream.send(piece)) await stream.onDrain()
  }
  await stream.close()
}, limits)

await node.handle(SIZE, async stream => {
  const { length } = await readAll(stream)
  stream.send(Buffer.from(String(length)))
  await stream.close()
}, limits)

await node.handle(BREAK, async stream => {
  for await (const _ of stream) break
  stream.abort(new Error('as asked'))
}, limits)

await node.handle(MUTE, stream => {
  stream.pause()
  muted.push(stream)
}, limits)

const open = (address, protocol) => node.dialProtocol(multiaddr(address), protocol, limits)

const echoOnce = async (address, data) => {
  const stream = await open(address, ECHO)
  const [back] = await Promise.all([readAll(stream), send(stream, data).then(() => stream.close())])
  if (!back.equals(data)) throw new Error(`the echo of ${data.length} bytes has ${back.length}`)
}

const told = {
  async echo ({ address, size, streams }) {
    const data = pattern(size)
    await Promise.all(Array.from({ length: streams }, () => echoOnce(address, data)))
    return { echoed: streams }
  },

  async ping ({ address }) {
    return { ms: await node.services.ping.ping(multiaddr(address)) }
  },

  // Send to one that doesn't read: how far does it go before nothing moves any more?
  async flood ({ address, size }) {
    const stream = await open(address, MUTE)
    let sent = 0
    let moved = Date.now()
    const all = send(stream, pattern(size), more => { sent += more; moved = Date.now() })
    const done = all.then(() => true)
    while (Date.now() - moved < STALL_MS) {
      if (await Promise.race([done, new Promise(resolve => setTimeout(resolve, 50, false))])) break
    }
    all.then(() => stream.close()).catch(() => {})
    return { sent }
  },

  async unmute () {
    const stream = muted.shift()
    const read = readAll(stream)
    stream.resume()
    const data = await read
    await stream.close()
    return { sha256: createHash('sha256').update(data).digest('hex') }
  },

  async broken ({ address }) {
    const stream = await open(address, BREAK)
    stream.send(Buffer.from('?'))
    try {
      await readAll(stream)
    } catch {
      return { broken: true }
    }
    return { broken: stream.status === 'reset' || stream.status === 'aborted' }
  }
}

const say = answer => process.stdout.write(JSON.stringify(answer) + '\n')

say({ address: node.getMultiaddrs()[0].toString() })
for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...given } = JSON.parse(line)
  try {
    say(await told[ask](given))
  } catch (error) {
    say({ error: `${error}` })
  }
}
process.exit(0)
