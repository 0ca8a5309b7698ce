//! The server over real sockets: tests of what a simulator cannot show, because it depends on the kernel.

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "../common/mod.rs"]
mod common;

mod closing;
mod deflate;
mod dialect;
mod embedding;
mod engine;
mod followers;
mod foreign;
mod herd;
mod hosts;
mod http;
mod ids;
mod late;
mod limits;
mod messages;
mod metrics;
mod names;
mod operators;
mod own_loop;
mod rfc;
mod single;
mod slow;
mod threads;
mod tokens;
