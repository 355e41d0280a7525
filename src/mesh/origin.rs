//! Where on the internet somebody is, as far as it can't be made up: what is counted for each address is counted by it.

use std::net::IpAddr;

/// An IPv4 address, or the 64 bits of an IPv6 one that a host doesn't choose itself. An IPv4 address that is written as an
/// IPv6 one is the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// An IPv4 address.
    V4(u32),
    /// An IPv6 network.
    V6(u64),
}

impl Origin {
    /// Where that address is.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_counts_as_one() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        let same = |a: &str, b: &str| of(a) == of(b);
        assert!(same("192.0.2.7", "::ffff:192.0.2.7"), "an IPv4 address is one however it is written");
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"), "a host chooses the lower half itself");
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.7", "192.0.2.8"));
        assert!(!same("::ffff:192.0.2.7", "::ffff:192.0.2.8"), "all of IPv4 is not one /64");
        assert!(!same("0.0.0.1", "::1"));
    }
}
