"""Python's websockets on uvloop: its own broadcast(), no compression. websockets_server.py PORT; /echo... echoes."""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import broadcast, serve

members = set()


async def handle(connection):
    if connection.request.path.startswith("/echo"):
        async for message in connection:
            await connection.send(message)
        return
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    finally:
        members.discard(connection)


async def main():
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=4096,
                     max_size=2**24, max_queue=None):
        await asyncio.get_running_loop().create_future()


uvloop.run(main())
