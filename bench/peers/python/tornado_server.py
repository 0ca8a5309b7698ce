"""tornado on uvloop. tornado_server.py PORT; /echo... echoes."""

import asyncio
import sys

import uvloop
from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

members = set()


class Member(WebSocketHandler):
    def open(self, *_):
        self.set_nodelay(True)
        members.add(self)

    def on_close(self):
        members.discard(self)

    def on_message(self, message):
        for member in tuple(members):
            try:
                member.write_message(message, binary=True)
            except WebSocketClosedError:
                members.discard(member)


class Echo(WebSocketHandler):
    def open(self, *_):
        self.set_nodelay(True)

    def on_message(self, message):
        self.write_message(message, binary=True)


async def main():
    application = Application([(r"/echo.*", Echo), (r"/.*", Member)], websocket_max_message_size=2**24)
    server = HTTPServer(application)
    server.listen(int(sys.argv[1]), "127.0.0.1", backlog=4096)
    await asyncio.get_running_loop().create_future()


uvloop.run(main())
