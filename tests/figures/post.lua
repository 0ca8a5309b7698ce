-- What wrk sends: short messages, as a backend publishes them.
wrk.method = "POST"
wrk.body = "hello world, a message of some bytes"
wrk.headers["Content-Type"] = "text/plain"
