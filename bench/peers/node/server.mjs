// Node's ws: one process, no compression, messages passed on as they came. `node server.mjs PORT`; `/echo…` echoes.
import { WebSocketServer } from 'ws'

const server = new WebSocketServer({
  port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096, perMessageDeflate: false, skipUTF8Validation: true,
})
const binary = { binary: true }
const members = new Set()
server.on('connection', (socket, request) => {
  socket.on('error', () => {})
  if (request.url.startsWith('/echo')) {
    socket.on('message', data => socket.send(data, binary))
    return
  }
  members.add(socket)
  socket.on('close', () => members.delete(socket))
  socket.on('message', data => { for (const member of members) member.send(data, binary) })
})
