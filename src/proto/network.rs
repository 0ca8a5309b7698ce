//! Which addresses count as one where limits and budgets are shared out by address.

use core::net::{IpAddr, Ipv6Addr};

/// The part of an IPv6 address that its owner does not choose freely: an owner of one address has a whole /64
/// (RFC 6177 §2, RFC 7421 §1).
const SITE: u128 = !(u64::MAX as u128);

/// The network that an address belongs to. For IPv4 it is the address itself, also if that is mapped into IPv6; for
/// IPv6 it is the /64. Every limit that counts by address counts these networks.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SITE).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_or_a_network_of_64_bits() {
        for (address, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.2"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:2::1", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
            ("::fffe:192.0.2.1", "::"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::"),
        ] {
            let expected: IpAddr = network.parse().unwrap();
            assert_eq!(network_of(address.parse().unwrap()), expected, "{address}");
            assert_eq!(network_of(expected), expected, "{address}: a network stands for itself");
        }
    }
}
