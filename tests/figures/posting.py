#!/usr/bin/env python3
"""Publishing by POST over kept connections, compared with nginx with nchan: posting.py BINARY. Both keep the last 100
messages for ten minutes and nobody listens; wrk posts to each in turns. If wrk, nginx or nchan is missing, it says so
and ends well."""

import glob
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from figures import Broker, table

ROUNDS = 3
SECONDS = 4
CONNECTIONS = 100
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
LIMITS = {  # figure: (limit, unit)
    "time per request, of one core": (20, "us"),
}
CONFIGURATION = """\
load_module %(module)s;
worker_processes 1;
pid %(folder)s/pid;
error_log %(folder)s/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:%(port)d;
        location ~ ^/(.+)$ {
            nchan_pubsub;
            nchan_channel_id $1;
            nchan_message_buffer_length 100;
            nchan_message_timeout 10m;
        }
    }
}
"""


class Nginx:
    def __init__(self, program, module):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        path = os.path.join(self.folder.name, "nginx.conf")
        with open(path, "w") as f:
            f.write(CONFIGURATION % {"module": module, "folder": self.folder.name, "port": self.port})
        # A worker that is not root must reach its folders.
        os.chmod(self.folder.name, 0o755)
        self.process = subprocess.Popen([program, "-p", self.folder.name, "-c", path, "-g", "daemon off;"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit("nginx does not listen: %r" % self.process.stderr.read(2000))
                time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()


def wrk(port):
    """Requests a second, and the 99th percentile of the latency in ms."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "post.lua")
    words = ["wrk", "-t1", "-c%d" % CONNECTIONS, "-d%ds" % SECONDS, "--latency", "-s", script, "http://127.0.0.1:%d/chat" % port]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS + 30)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    latency = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    if not rate or not latency or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit("wrk says %s%s" % (done.stdout, done.stderr))
    return float(rate[1]), float(latency[1]) * {"us": 0.001, "ms": 1, "s": 1000}[latency[2]]


def measure(binary, nginx, figures):
    broker = Broker(binary)
    try:
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(wrk(broker.port))
            theirs.append(wrk(nginx.port))
            print("  round %d: slotcast %.0f requests a second, p99 %.2f ms; nginx with nchan %.0f, p99 %.2f ms" % (
                number + 1, *ours[-1], *theirs[-1]), flush=True)
    finally:
        broker.stop()
    median = lambda rounds: statistics.median(rate for rate, _ in rounds)
    print("  medians: slotcast %.0f, nginx with nchan %.0f requests a second" % (median(ours), median(theirs)))
    figures["time per request, of one core"] = 1e6 / median(ours)


def main(binary):
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    modules = [path for folder in MODULES for path in glob.glob(folder + "/ngx_nchan_module.so")]
    missing = [name for name, there in (("wrk", shutil.which("wrk")), ("nginx", program), ("nchan", modules)) if not there]
    if missing:
        print("SKIPPED: publishing beside nchan needs %s (apt-get install wrk nginx-core libnginx-mod-nchan)" % ", ".join(missing))
        return 0
    figures = {}
    try:
        nginx = Nginx(program, modules[0])
        try:
            measure(binary, nginx, figures)
        finally:
            nginx.stop()
    except (SystemExit, OSError, subprocess.TimeoutExpired) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
