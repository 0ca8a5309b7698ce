//! Which connection goes when all together hold too much of what arrives: the largest of the network that holds most
//! in all. If the largest of all went, a crowd of middling uploads from one place would end the one large upload of
//! somebody else.

use core::net::IpAddr;
use std::collections::{BinaryHeap, HashMap};

/// What one connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holding {
    /// In bytes.
    pub(super) bytes: usize,
    /// The connection's slot.
    pub(super) slot: u32,
}

/// What the connections of one network hold.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    /// The sum of `holdings`.
    bytes: usize,
    holdings: Vec<Holding>,
}

/// All that is held, by network. This is made only when too much is held, and then clearly more than the surplus is
/// freed, so that nothing has to be kept up to date with every byte that arrives. However much has to go, it costs
/// O(n log n).
#[derive(Debug)]
pub(super) struct Shares(BinaryHeap<Network>);

impl Shares {
    /// The shares of connections that hold something. Networks are those of `network_of`.
    pub(super) fn new(holdings: impl Iterator<Item = (IpAddr, Holding)>) -> Shares {
        let mut networks: HashMap<IpAddr, Network> = HashMap::new();
        for (network, holding) in holdings.filter(|(_, holding)| holding.bytes > 0) {
            let network = networks.entry(network).or_default();
            network.bytes += holding.bytes;
            network.holdings.push(holding);
        }
        networks.values_mut().for_each(|network| network.holdings.sort_unstable());
        Shares(networks.into_values().collect())
    }
}

/// The connections that are to go, one after the other.
impl Iterator for Shares {
    type Item = Holding;

    fn next(&mut self) -> Option<Holding> {
        let mut network = self.0.pop()?;
        let largest = network.holdings.pop()?;
        network.bytes -= largest.bytes;
        if !network.holdings.is_empty() {
            self.0.push(network);
        }
        Some(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn shares(holdings: &[(u8, usize)]) -> Shares {
        let holding = |(slot, &(network, bytes)): (usize, &(u8, usize))| {
            (IpAddr::from([192, 0, 2, network]), Holding { bytes, slot: slot as u32 })
        };
        Shares::new(holdings.iter().enumerate().map(holding))
    }

    fn order(holdings: &[(u8, usize)]) -> Vec<u32> {
        shares(holdings).map(|holding| holding.slot).collect()
    }

    #[test]
    fn the_network_that_holds_most_pays_first_with_its_largest() {
        assert!(order(&[]).is_empty());
        assert!(order(&[(1, 0), (2, 0)]).is_empty(), "a connection that holds nothing does not go");
        assert_eq!(order(&[(1, 5)]), [0]);
        assert_eq!(order(&[(1, 5), (1, 7), (1, 6)]), [1, 2, 0]);
        // 900 of one are less than three times 400 of another, and more than twice.
        assert_eq!(order(&[(1, 900), (2, 400), (2, 401), (2, 402)]), [3, 0, 2, 1]);
    }

    /// Checks the order by the rule, one connection at a time.
    #[test]
    fn the_order_is_what_the_rule_says() {
        let mut random = Random::seeded();
        for _ in 0..500 {
            let count = random.below(40);
            let mut left: Vec<(u8, usize)> =
                (0..count).map(|_| (random.below(5) as u8, random.below(4) * random.below(1000))).collect();
            for paid in shares(&left.clone()) {
                let total =
                    |network: u8| left.iter().filter(|held| held.0 == network).map(|held| held.1).sum::<usize>();
                let payer = left[paid.slot as usize].0;
                let most = left.iter().map(|held| total(held.0)).max();
                assert_eq!(Some(total(payer)), most, "{random}: another network holds more");
                let largest = left.iter().filter(|held| held.0 == payer).map(|held| held.1).max();
                assert_eq!(Some(left[paid.slot as usize].1), largest, "{random}: it holds something larger");
                assert_eq!(left[paid.slot as usize].1, paid.bytes);
                left[paid.slot as usize].1 = 0;
            }
            assert!(left.iter().all(|held| held.1 == 0), "{random}");
        }
    }
}
