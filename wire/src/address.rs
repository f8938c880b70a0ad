//! Which addresses count as one where a limit is for each: at the doors of MQTT, of HTTP, and in REST. The limits
//! themselves are where they are held.

use std::net::IpAddr;

/// Who is counted together: an IPv4 address alone, an IPv6 address with its /64, which is what one customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Customer {
    /// By IPv4, also where a listener of both families sees the address as a mapped one of IPv6.
    V4([u8; 4]),
    /// By IPv6: the first half of the address.
    V6([u8; 8]),
}

impl From<IpAddr> for Customer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_however_it_is_written_and_an_ipv6_address_is_one_with_its_64() {
        let of = |text: &str| Customer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("0.0.0.0"), of("::"));
    }
}
