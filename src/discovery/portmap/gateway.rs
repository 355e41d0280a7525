//! Who the gateway is.

use std::net::{IpAddr, Ipv4Addr};

/// The most of the routing table that is read.
#[cfg(target_os = "linux")]
const MAX_TABLE: u64 = 1024 * 1024;

/// The gateway of the default route. Where the system doesn't tell it in a file, UPnP finds its own.
#[cfg(target_os = "linux")]
pub(super) fn default_gateway() -> Option<IpAddr> {
    use std::io::Read;
    let mut table = String::new();
    // Of this thread's network namespace.
    std::fs::File::open("/proc/net/route").ok()?.take(MAX_TABLE).read_to_string(&mut table).ok()?;
    of_table(&table)
}

/// The gateway of the default route.
#[cfg(not(target_os = "linux"))]
pub(super) fn default_gateway() -> Option<IpAddr> {
    None
}

/// The gateway of the default route with the lowest metric.
#[cfg(any(target_os = "linux", test))]
fn of_table(table: &str) -> Option<IpAddr> {
    /// It is up, and leads to a gateway.
    const UP_GATEWAY: u32 = 0x1 | 0x2;
    let default = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (destination, gateway, flags) = (fields.next()?, fields.next()?, fields.next()?);
        let (metric, mask) = (fields.nth(2)?, fields.next()?);
        let hex = |text: &str| u32::from_str_radix(text, 16).ok();
        let fits = hex(destination)? == 0 && hex(mask)? == 0 && hex(flags)? & UP_GATEWAY == UP_GATEWAY;
        // As the bytes lie in memory.
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        (fits && !gateway.is_unspecified()).then_some((metric.parse::<u32>().ok()?, IpAddr::V4(gateway)))
    };
    table.lines().filter_map(default).min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_leads_to_the_gateway() {
        let gateway = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let route = |iface: &str, to: &str, via: [u8; 4], flags: &str, metric: u32| {
            format!("{iface}\t{to}\t{}\t{flags}\t0\t0\t{metric}\t{to}\t0\t0\t0\n", gateway(via))
        };
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let table = [
            head.to_owned(),
            route("wlan0", "00000000", [192, 168, 1, 1], "0003", 600),
            route("eth0", "00000000", [10, 0, 0, 1], "0003", 100),
            route("eth1", "00000000", [10, 9, 9, 9], "0002", 1),
            route("eth0", "0000000A", [10, 0, 0, 7], "0003", 0),
            "a line of nonsense\n".to_owned(),
        ];
        assert_eq!(of_table(&table.concat()), Some([10, 0, 0, 1].into()));
        assert_eq!(of_table(head), None);
        assert_eq!(of_table(""), None);
    }
}
