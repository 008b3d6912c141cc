//! IP addresses as event-ruler reads them: only dotted quads and colon-separated hex count as addresses, and a
//! v4 address written as v6 is the v4 address.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An address, ordered within its family. The two families never equal or contain one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Address {
    V4(u32),
    V6(u128),
}

impl Address {
    /// Reads an address literal; `None` for anything else, host names included.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.contains(':') {
            let plain = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            let address: Ipv6Addr = plain.then(|| text.parse().ok()).flatten()?;
            return Some(match address.to_ipv4_mapped() {
                Some(v4) => Self::V4(v4.to_bits()),
                None => Self::V6(address.to_bits()),
            });
        }
        let mut octets = [0u8; 4];
        let mut parts = text.split('.');
        for octet in &mut octets {
            let part = parts.next()?;
            // Java reads "010" as ten; Rust's own parser would refuse it.
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            *octet = digits.then(|| part.parse().ok()).flatten()?;
        }
        parts.next().is_none().then(|| Self::V4(Ipv4Addr::from(octets).to_bits()))
    }
}

/// A block of addresses: from the first to the last, both within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    first: Address,
    last: Address,
}

impl Block {
    /// Reads `address/bits`. As in event-ruler a block holds at least two addresses: at most 31 bits for v4 and
    /// 127 for v6. The error says what is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if !bits.contains('/') => (address, bits),
            _ => return Err("cidr must be an address, one '/' and a number of bits".to_owned()),
        };
        let bits: u32 = bits.parse().map_err(|_| "cidr bits must be a whole number".to_owned())?;
        match Address::read(address) {
            None => Err(format!("\"{address}\" is not an IP address")),
            Some(Address::V4(_)) if bits > 31 => {
                Err("cidr bits of an IPv4 address must be less than 32".to_owned())
            }
            Some(Address::V6(_)) if bits > 127 => {
                Err("cidr bits of an IPv6 address must be less than 128".to_owned())
            }
            Some(Address::V4(v4)) => {
                let host = u32::MAX.checked_shr(bits).unwrap_or(0);
                Ok(Self { first: Address::V4(v4 & !host), last: Address::V4(v4 | host) })
            }
            Some(Address::V6(v6)) => {
                let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                Ok(Self { first: Address::V6(v6 & !host), last: Address::V6(v6 | host) })
            }
        }
    }

    /// Whether the address lies in the block.
    pub(crate) fn contains(&self, address: Address) -> bool {
        match (self.first, address, self.last) {
            (Address::V4(first), Address::V4(at), Address::V4(last)) => (first..=last).contains(&at),
            (Address::V6(first), Address::V6(at), Address::V6(last)) => (first..=last).contains(&at),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        Block::read(block).unwrap().contains(Address::read(address).unwrap())
    }

    #[test]
    fn blocks_cover_the_whole_network_of_the_address_given() {
        assert!(holds("220.160.154.255/24", "220.160.154.0"));
        assert!(!holds("220.160.154.255/24", "220.160.155.0"));
        assert!(holds("0.0.0.0/0", "255.255.255.255"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::"));
        assert!(!holds("::/0", "10.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:a00:1"));
    }

    #[test]
    fn refuses_what_is_not_a_block() {
        for text in [
            "foo",
            "10.0.0.0",
            "10.0.0.0/8/9",
            "10.0.0.0/32",
            "::1/128",
            "10.0.0/8",
            "a.b.c.d/8",
            "1.1.1.1/-1",
        ] {
            assert!(Block::read(text).is_err(), "{text}");
        }
    }
}
