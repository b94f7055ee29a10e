//! The egress fence: which addresses the router's calls may connect to. Pure: addresses, names and ports in, a verdict
//! out. A templated URL must not reach what only this machine can reach, so every address that is not public is refused
//! unless `egress.allow` lists it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{EgressHost, EgressRule};

/// The built-in refusal of addresses that are not public, less what `egress.allow` lists.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    rules: Vec<EgressRule>,
}

/// A refused address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub address: IpAddr,
    pub what: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { address, what } = self;
        write!(
            f,
            "the address {address} is {what}; a call may go there only if `egress.allow` in router.yaml lists it"
        )
    }
}

impl std::error::Error for Refused {}

impl Fence {
    pub fn new(rules: Vec<EgressRule>) -> Self {
        Self { rules }
    }

    /// Ports that some rule names: only for these does a verdict depend on the port.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.rules.iter().filter_map(|rule| rule.port)
    }

    /// May a connection be made to `address`? `name` is the host as the URL writes it, where it is a name.
    pub fn admit(&self, name: Option<&str>, address: IpAddr, port: u16) -> Result<(), Refused> {
        let Some(what) = not_public(address) else { return Ok(()) };
        if self.rules.iter().any(|rule| lists(rule, name, address, port)) {
            return Ok(());
        }
        Err(Refused { address, what })
    }
}

fn lists(rule: &EgressRule, name: Option<&str>, address: IpAddr, port: u16) -> bool {
    if rule.port.is_some_and(|only| only != port) {
        return false;
    }
    match &rule.host {
        EgressHost::Net(net) => {
            net.contains(&address)
                || embedded(address).is_some_and(|inner| net.contains(&IpAddr::V4(inner)))
        }
        EgressHost::Name(listed) => name.is_some_and(|name| {
            name.trim_end_matches('.').eq_ignore_ascii_case(listed.trim_end_matches('.'))
        }),
    }
}

/// What kind of not public an address is; `None` for a public one.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// By the IANA special-purpose registry (<https://www.iana.org/assignments/iana-ipv4-special-registry>).
fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [100, 64..=127, ..] => Some("shared by carriers (100.64.0.0/10)"),
        // The metadata service of most clouds is 169.254.169.254.
        [169, 254, ..] => Some("link-local"),
        // 192.0.0.192 is the metadata service of one more.
        [192, 0, 0, _] | [192, 88, 99, _] => Some("reserved for protocols"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("for documentation"),
        [198, 18..=19, ..] => Some("for benchmarks"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

/// Only 2000::/3 is handed out; within it and beside it, forms that carry an IPv4 address are as public as that one.
fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = embedded(IpAddr::V6(address)) {
        return match address.segments() {
            // ::1 and :: read like IPv4-compatible addresses.
            [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
            [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
            _ => not_public_v4(inner),
        };
    }
    match address.segments() {
        // fd00:ec2::254 is a metadata service.
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("private (site-local)"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0x0000, ..] => Some("a Teredo tunnel"),
        [0x2001, 0x0001..=0x01ff, ..] => Some("reserved for protocols"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Some("for documentation"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

/// The IPv4 address inside: mapped, compatible, NAT64 (RFC 6052) and 6to4 forms.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [high, low] = match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => [high.to_be_bytes(), low.to_be_bytes()],
        _ => return None,
    };
    Some(Ipv4Addr::new(high[0], high[1], low[0], low[1]))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    /// A rule from `host`, `host:port` or a net.
    fn rule(host: &str, port: Option<u16>) -> EgressRule {
        let net = host.parse().ok().or_else(|| host.parse::<IpAddr>().ok().map(Into::into));
        let host = net.map_or_else(|| EgressHost::Name(host.to_owned()), EgressHost::Net);
        EgressRule { host, port }
    }

    /// The verdict on a URL whose host is an address in any spelling.
    fn check(fence: &Fence, url: &str, expected: Option<&str>) {
        let url = Url::parse(url).unwrap();
        let address = match url.host().unwrap() {
            url::Host::Ipv4(address) => IpAddr::V4(address),
            url::Host::Ipv6(address) => IpAddr::V6(address),
            url::Host::Domain(name) => panic!("{name} is not an address"),
        };
        let verdict = fence.admit(None, address, url.port_or_known_default().unwrap());
        assert_eq!(verdict.err().map(|refused| refused.what), expected, "{url}");
    }

    #[test]
    fn every_spelling_of_an_address_that_is_not_public_is_refused() {
        let fence = Fence::default();
        for (url, what) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://127.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f000001/", "loopback"),
            ("http://0x7f.0.0.1/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://017700000001/", "loopback"),
            ("http://127.0.0.1./", "loopback"),
            ("http://%31%32%37.0.0.1/", "loopback"),
            ("http://①②⑦.0.0.1/", "loopback"),
            ("http://user@127.0.0.1:80/", "loopback"),
            ("http://127.255.255.254/", "loopback"),
            ("http://0/", "unspecified"),
            ("http://0.0.0.0/", "unspecified"),
            ("http://10.0.0.1/", "private"),
            ("http://0xa.1/", "private"),
            ("http://172.16.0.1/", "private"),
            ("http://172.31.255.255/", "private"),
            ("http://192.168.1.1/", "private"),
            ("http://3232235777/", "private"),
            ("http://100.64.0.1/", "shared by carriers (100.64.0.0/10)"),
            ("http://100.100.100.200/", "shared by carriers (100.64.0.0/10)"),
            ("http://169.254.169.254/latest/meta-data", "link-local"),
            ("http://2852039166/", "link-local"),
            ("http://0xa9fea9fe/", "link-local"),
            ("http://192.0.0.192/", "reserved for protocols"),
            ("http://192.0.2.1/", "for documentation"),
            ("http://198.18.0.1/", "for benchmarks"),
            ("http://224.0.0.1/", "multicast"),
            ("http://255.255.255.255/", "reserved"),
            ("http://[::]/", "unspecified"),
            ("http://[::1]/", "loopback"),
            ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
            ("http://[::127.0.0.1]/", "loopback"),
            ("http://[::ffff:127.0.0.1]/", "loopback"),
            ("http://[::ffff:7f00:1]/", "loopback"),
            ("http://[::ffff:0:7f00:1]/", "loopback"),
            ("http://[::ffff:169.254.169.254]/", "link-local"),
            ("http://[64:ff9b::a9fe:a9fe]/", "link-local"),
            ("http://[64:ff9b:1::a00:1]/", "reserved"),
            ("http://[2002:a00:1::]/", "private"),
            ("http://[2002:7f00:1::1]/", "loopback"),
            ("http://[2001:0:1::1]/", "a Teredo tunnel"),
            ("http://[2001:db8::1]/", "for documentation"),
            ("http://[fc00::1]/", "private"),
            ("http://[fd00:ec2::254]/", "private"),
            ("http://[fe80::1]/", "link-local"),
            ("http://[fec0::1]/", "private (site-local)"),
            ("http://[ff02::1]/", "multicast"),
            ("http://[4000::1]/", "reserved"),
            ("http://[100::1]/", "reserved"),
        ] {
            check(&fence, url, Some(what));
        }
    }

    #[test]
    fn public_addresses_pass() {
        let fence = Fence::default();
        for url in [
            "http://1.1.1.1/",
            "http://9.255.255.255/",
            "http://11.0.0.1/",
            "http://100.63.255.255/",
            "http://100.128.0.1/",
            "http://172.15.0.1/",
            "http://172.32.0.1/",
            "http://169.253.0.1/",
            "http://[2606:4700::1111]/",
            "http://[2a00::1]/",
            "http://[64:ff9b::101:101]/",
            "http://[::ffff:1.1.1.1]/",
        ] {
            check(&fence, url, None);
        }
    }

    #[test]
    fn what_is_listed_passes_on_its_port_alone() {
        let fence = Fence::new(vec![
            rule("10.1.0.0/16", None),
            rule("127.0.0.1", Some(9000)),
            rule("fd00::/64", Some(443)),
        ]);
        check(&fence, "http://10.1.2.3:1234/", None);
        check(&fence, "http://[::ffff:10.1.2.3]/", None);
        check(&fence, "http://10.2.2.3/", Some("private"));
        check(&fence, "http://127.0.0.1:9000/", None);
        check(&fence, "http://0x7f.1:9000/", None);
        check(&fence, "http://127.0.0.1:9001/", Some("loopback"));
        check(&fence, "http://127.0.0.2:9000/", Some("loopback"));
        check(&fence, "https://[fd00::7]/", None);
        check(&fence, "http://[fd00::7]/", Some("private"));
        assert_eq!(fence.ports().collect::<Vec<_>>(), [9000, 443]);
    }

    #[test]
    fn a_listed_name_passes_whatever_it_resolves_to() {
        let fence = Fence::new(vec![rule("localhost", Some(9000)), rule("internal.example", None)]);
        let loopback = "127.0.0.1".parse().unwrap();
        let private = "10.0.0.9".parse().unwrap();
        assert!(fence.admit(Some("localhost"), loopback, 9000).is_ok());
        assert!(fence.admit(Some("localhost."), loopback, 9000).is_ok());
        assert!(fence.admit(Some("localhost"), loopback, 9001).is_err());
        assert!(fence.admit(Some("internal.example"), private, 1).is_ok());
        assert!(fence.admit(Some("evil.internal.example"), private, 1).is_err());
        assert!(fence.admit(Some("other.example"), private, 1).is_err());
        assert!(fence.admit(None, loopback, 9000).is_err());
    }
}
