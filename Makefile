# Every target is one line; what it does stands in the script that it names.
.DEFAULT_GOAL := help
.PHONY: help run test rust-test planted websocat-test autobahn browser-test examples-test clients-test proxies-test docs-test screenshot lint page api deny doc bench bench-check steps micro figures tokens silence seeds fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and run the broker on http://localhost:8080
	cargo run --release

test: ## everything: Rust tests, real websocat, real Autobahn, real browser, Python and Node clients, real proxies, and what the documents say to run (sets itself up)
	bash tests/run.sh

rust-test: ## unit, integration and documentation tests
	bash tests/run.sh rust

websocat-test: ## the real websocat against the real broker
	bash tests/run.sh websocat

autobahn: ## the whole Autobahn suite, 517 cases, strict (make test leaves out the long ones of compression)
	AUTOBAHN=all bash tests/run.sh autobahn

browser-test: ## the page, followers and the module in a real Chromium
	bash tests/run.sh browser

examples-test: ## every example as a child process: its page in a real Chromium, or a WebSocket
	bash tests/run.sh examples

clients-test: ## Python's and Node's clients, of other protocols too, against the real broker (TRIES=100: each refusal so often, an hour)
	bash tests/run.sh clients

proxies-test: ## nginx, Caddy and HAProxy before the real broker, with the configurations of the documentation
	bash tests/run.sh proxies

docs-test: ## the commands and programs of the documents, as they stand there
	bash tests/run.sh docs

planted: ## bugs put in on purpose, which the tests must notice (an hour; SHARD=2/5: the second fifth)
	bash tests/planted/run.sh

screenshot: ## the picture of the README, docs/chat.webp (needs what make browser-test installs)
	cargo build --release --quiet && SLOTCAST_BIN="$${CARGO_TARGET_DIR:-target}/release/slotcast" node tests/browser/screenshot.mjs

lint: ## format, clippy and documentation, warnings are errors
	bash tests/run.sh lint

page: ## the served page and module, from those that are for reading (then mend the policy's hashes: cargo test --lib page)
	WRITE_SERVED=1 cargo test --quiet --test page

api: ## the crate's public interface against tests/api.txt (needs a nightly Rust; UPDATE=1 writes it)
	[ -x .tools/bin/cargo-public-api ] || cargo install --quiet --locked --root .tools cargo-public-api
	PATH="$$PWD/.tools/bin:$$PATH" cargo +nightly public-api --no-default-features --features testing -sss > .tools/api.txt
	$(if $(UPDATE),cp .tools/api.txt tests/api.txt,diff -u tests/api.txt .tools/api.txt)

deny: ## licences, bans and sources of all dependencies, by cargo-deny (installed into .tools first: some minutes)
	[ -x .tools/bin/cargo-deny ] || cargo install --quiet --locked --root .tools cargo-deny
	.tools/bin/cargo-deny check bans licenses sources

doc: ## the crate's documentation, in target/doc
	cargo doc --no-deps

bench: ## slotcast, the floor and other servers side by side, into bench/RESULTS.md (25 minutes; QUICK=1: three)
	bash bench/run.sh

bench-check: ## instructions a delivery, by callgrind, against the committed figures
	bash tests/run.sh bench-check

steps: ## instructions of each step of a turn with its worst input, by callgrind, beside what it counts for
	python3 bench/instructions.py --steps

micro: ## the paths that a byte travels, without sockets
	cargo bench --bench micro

figures: ## size, start, memory at rest and per connection, against their limits
	bash tests/figures/run.sh

tokens: ## CPU of handshakes with tokens, memory of each, and what a reload under load loses, against their limits (three minutes)
	python3 bench/tokens.py

silence: ## what attacks do to those who are quiet: one line an attack and size (half an hour; QUICK=1: five minutes)
	bash tests/silence/run.sh

seeds: ## a hundred thousand seeds through the simulator
	SLOTCAST_SEEDS=100000 cargo test --release --test simulator -- --nocapture

fuzz: ## every fuzz target for a minute, with libFuzzer (needs a nightly Rust)
	bash fuzz/run.sh

clean: ## remove everything that was built or installed here
	rm -rf target .tools tests/browser/node_modules tests/clients/node_modules
