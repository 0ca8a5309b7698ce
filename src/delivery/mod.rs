//! What a peer is owed: batches of encoded bytes that many connections share, and for each connection the ranges
//! of them that are not sent yet. It knows no protocol: what is encoded comes from above.

pub mod batch;
pub mod outbound;
