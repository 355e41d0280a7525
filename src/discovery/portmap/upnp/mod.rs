//! UPnP, as far as one TCP port needs it: looking for the gateway (SSDP), reading its description, asking it (SOAP).
//!
//! Not a library: those bring an HTTP client with HTTP/2, URLs with the tables of all scripts and an XML tree, a tenth of the
//! whole program. Anybody on the network may answer, so what is read is bounded, and nobody is asked but who answered.

mod http;
mod xml;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use http::Place;

/// What is looked for.
const TARGETS: [&str; 3] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// What can map ports.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The largest answer to the question who is there.
const MAX_ANSWER: usize = 1536;

/// How many other ports are tried where one is taken.
const OTHER_PORTS: usize = 20;

/// The ports for that.
const FREE_PORTS: RangeInclusive<u16> = 32_768..=65_535;

/// The gateway says that the port leads elsewhere.
const CONFLICT: u16 = 718;

/// It knows only mappings without an end.
const ONLY_PERMANENT: u16 = 725;

/// A gateway that was found.
#[derive(Debug)]
pub(super) struct Gateway {
    addr: SocketAddrV4,
    service: &'static str,
    control: Place,
}

/// Why a gateway doesn't do what it is asked.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It gives a number, and words for it.
    Says(u16, String),
    /// It isn't understood.
    Failed(String),
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Says(code, words) => format!("the gateway refuses: {code} {words}"),
            Refusal::Failed(why) => why,
        }
    }
}

/// Asks all who listen at `ssdp`, and takes the first gateway whose description can be read. `on_loopback`: those may be there.
pub(super) async fn search(ssdp: SocketAddr, within: Duration, on_loopback: &[IpAddr]) -> Result<Gateway, String> {
    let socket = ask_all(ssdp).await.map_err(|e| e.to_string())?;
    let first = async {
        let mut buffer = [0; MAX_ANSWER];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // What the system tells of an earlier packet, and not for ever.
                Err(error) => {
                    tracing::debug!(%error, "no answer by SSDP");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let place = location(&buffer[..length]).filter(|place| is_own(place, from, on_loopback));
            let Some(place) = place else { continue };
            match described(&place).await {
                Ok(gateway) => return gateway,
                Err(why) => tracing::debug!(%from, %why, "a UPnP description that is of no use"),
            }
        }
    };
    timeout(within, first).await.map_err(|_| "no gateway answered".to_owned())
}

async fn ask_all(ssdp: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let mut sent = Ok(());
    let mut any = false;
    for target in TARGETS {
        let ask = format!("M-SEARCH * HTTP/1.1\r\nHost:{ssdp}\r\nST:{target}\r\nMan:\"ssdp:discover\"\r\nMX:3\r\n\r\n");
        match socket.send_to(ask.as_bytes(), ssdp).await {
            Ok(_) => any = true,
            Err(error) => sent = Err(error),
        }
    }
    if any { Ok(socket) } else { sent.map(|()| socket) }
}

/// Where an answer says that the description is.
fn location(answer: &[u8]) -> Option<Place> {
    let answer = std::str::from_utf8(answer).ok()?;
    let value = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then_some(value.trim())
    });
    Place::parse(value?)
}

/// Whether somebody speaks of itself, and could be a gateway.
fn is_own(place: &Place, from: SocketAddr, on_loopback: &[IpAddr]) -> bool {
    let ip = IpAddr::from(*place.addr.ip());
    let is_special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    place.addr.port() != 0 && ip == from.ip() && (!is_special || on_loopback.contains(&ip))
}

async fn described(place: &Place) -> Result<Gateway, String> {
    let answer = http::get(place).await?;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    let (service, control) = control(&answer.body, place).ok_or("it tells of nothing that maps ports")?;
    Ok(Gateway { addr: place.addr, service, control })
}

/// The service that maps ports and where it is asked, of a description.
fn control(description: &str, at: &Place) -> Option<(&'static str, Place)> {
    let mut base = None;
    let (mut service, mut url) = (None, None);
    for element in xml::texts(description)? {
        match element.path.as_slice() {
            ["root", "URLBase"] => base = at.join(&element.text),
            [.., "service", "serviceType"] => service = SERVICES.into_iter().find(|known| *known == element.text),
            [.., "service", "controlURL"] => url = Some(element.text),
            // It is over.
            [.., "service"] => match (service.take(), url.take()) {
                (Some(service), Some(url)) => {
                    let place = base.as_ref().unwrap_or(at).join(&url)?;
                    // Elsewhere may be anything on this network.
                    return (place.addr.ip() == at.addr.ip() && place.addr.port() != 0).then_some((service, place));
                }
                _ => (service, url) = (None, None),
            },
            _ => {}
        }
    }
    None
}

impl Gateway {
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr.into()
    }

    /// The address that it has outside.
    pub(super) async fn external_ip(&self) -> Result<IpAddr, String> {
        let answer = self.ask("GetExternalIPAddress", &[]).await?;
        let said = xml::text_of(&answer, "NewExternalIPAddress").ok_or("it doesn't say its address outside")?;
        said.trim().parse().map_err(|_| format!("its address outside is {said:?}"))
    }

    /// Maps the port outside of the same number, or another one if that is taken. Gives which, and for how long: zero stands
    /// for a mapping without an end, where the gateway knows no other.
    pub(super) async fn add(&self, local: SocketAddr, lease: Duration, name: &str) -> Result<(u16, Duration), String> {
        let mut port = local.port();
        let mut lasts = lease;
        for _ in 0..=OTHER_PORTS {
            match self.map(port, local, lasts, name).await {
                Ok(()) => return Ok((port, lasts)),
                Err(Refusal::Says(ONLY_PERMANENT, _)) if !lasts.is_zero() => lasts = Duration::ZERO,
                Err(Refusal::Says(CONFLICT, _)) => port = rand::random_range(FREE_PORTS),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err("the ports outside that were asked for are taken".to_owned())
    }

    /// Maps that port, or again.
    pub(super) async fn renew(
        &self,
        external: u16,
        local: SocketAddr,
        lease: Duration,
        name: &str,
    ) -> Result<(), String> {
        Ok(self.map(external, local, lease, name).await?)
    }

    async fn map(&self, external: u16, local: SocketAddr, lease: Duration, name: &str) -> Result<(), Refusal> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "TCP".to_owned()),
            ("NewInternalPort", local.port().to_string()),
            ("NewInternalClient", local.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", name.to_owned()),
            ("NewLeaseDuration", lease.as_secs().to_string()),
        ];
        self.ask("AddPortMapping", &arguments).await.map(drop)
    }

    pub(super) async fn remove(&self, external: u16) -> Result<(), String> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "TCP".to_owned()),
        ];
        Ok(self.ask("DeletePortMapping", &arguments).await.map(drop)?)
    }

    /// Gives the answer's text. The arguments are of this node's own making and need no escaping.
    async fn ask(&self, action: &str, arguments: &[(&str, String)]) -> Result<String, Refusal> {
        let service = self.service;
        let arguments: String = arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{service}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let answer = http::post(&self.control, &format!("\"{service}#{action}\""), &body).await;
        understood(action, answer.map_err(Refusal::Failed)?)
    }
}

fn understood(action: &str, answer: http::Answer) -> Result<String, Refusal> {
    if answer.status == 200 && xml::has(&answer.body, &format!("{action}Response")) {
        return Ok(answer.body);
    }
    let code = xml::text_of(&answer.body, "errorCode").and_then(|code| code.trim().parse().ok());
    Err(match code {
        Some(code) => Refusal::Says(code, xml::text_of(&answer.body, "errorDescription").unwrap_or_default()),
        None => Refusal::Failed(format!("no answer to {action} that can be read (status {})", answer.status)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "http://192.168.1.1:5000/rootDesc.xml";

    fn description(base: &str, services: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- a router --><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device>\
             <friendlyName>R&amp;D <![CDATA[<router>]]></friendlyName><serviceList><service>\
             <serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL>\
             </service></serviceList><deviceList><device><serviceList>{services}</serviceList></device></deviceList>\
             </device></root>"
        )
    }

    fn service(kind: &str, url: &str) -> String {
        format!(
            "<service><serviceType>urn:schemas-upnp-org:service:{kind}</serviceType><SCPDURL/>\
             <controlURL> {url} </controlURL></service>"
        )
    }

    fn found(base: &str, services: &str) -> Option<(&'static str, String)> {
        let (service, place) = control(&description(base, services), &Place::parse(HOME).unwrap())?;
        Some((service.rsplit_once("service:").unwrap().1, place.to_string()))
    }

    #[test]
    fn the_service_that_maps_ports_is_found_at_the_gateway_only() {
        for (base, url, place) in [
            ("", "/ctl/IPConn", Some("192.168.1.1:5000/ctl/IPConn")),
            ("", "ctl?a=1&amp;b=2", Some("192.168.1.1:5000/ctl?a=1&b=2")),
            ("", "http://192.168.1.1/ctl", Some("192.168.1.1:80/ctl")),
            ("<URLBase>http://192.168.1.1:80/base/</URLBase>", "ctl", Some("192.168.1.1:80/base/ctl")),
            ("<URLBase>http://192.168.1.2:80/</URLBase>", "/ctl", None),
            ("", "http://192.168.1.2:5000/ctl", None),
            ("", "//192.168.1.2/ctl", None),
            ("", "https://192.168.1.1/ctl", None),
            ("", "http://router/ctl", None),
            ("", "http://192.168.1.1:0/ctl", None),
            ("", "http://root@192.168.1.1/ctl", None),
            ("", "/ctl HTTP/1.1&#13;&#10;X: y", None),
        ] {
            let found = found(base, &service("WANIPConnection:2", url));
            assert_eq!(found, place.map(|place| ("WANIPConnection:2", place.to_owned())), "{base} {url}");
        }
        assert_eq!(found("", &service("WANCommonInterfaceConfig:1", "/common")), None);
        let both = service("WANCommonInterfaceConfig:1", "/common") + &service("WANPPPConnection:1", "/ppp");
        assert_eq!(found("", &both), Some(("WANPPPConnection:1", "192.168.1.1:5000/ppp".to_owned())));
    }

    #[test]
    fn whoever_answers_speaks_of_itself() {
        let answer = |url: &str| location(format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation:{url}\r\n\r\n").as_bytes());
        let from = SocketAddr::from(([192, 168, 1, 1], 1900));
        let own = |url: &str, from| answer(url).is_some_and(|place| is_own(&place, from, &[]));
        assert!(own(" http://192.168.1.1:5000/x", from));
        assert!(own("http://192.168.1.1", from));
        for url in ["http://192.168.1.2:5000/x", "http://192.168.1.1:0/", "http://gateway/", "file:///etc/passwd", ""] {
            assert!(!own(url, from), "{url}");
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], 1900));
        assert!(!own("http://127.0.0.1:5000/", loopback));
        assert!(is_own(&answer("http://127.0.0.1:5000/").unwrap(), loopback, &[loopback.ip()]));
        assert!(location(&[0xff, 0xfe]).is_none());
    }

    #[test]
    fn answers_are_understood_with_their_reasons() {
        let answer = |status, body: &str| http::Answer { status, body: body.to_owned() };
        let fine = "<s:Envelope xmlns:s=\"x\"><s:Body><u:AddPortMappingResponse xmlns:u=\"y\"/></s:Body></s:Envelope>";
        assert_eq!(understood("AddPortMapping", answer(200, fine)), Ok(fine.to_owned()));
        let fault = "<s:Envelope><s:Body><s:Fault><faultcode>s:Client</faultcode><detail><UPnPError xmlns=\"z\">\
                     <errorCode> 718 </errorCode><errorDescription>Conflict&#x21;</errorDescription></UPnPError></detail>\
                     </s:Fault></s:Body></s:Envelope>";
        let refused = understood("AddPortMapping", answer(500, fault)).unwrap_err();
        assert_eq!(refused, Refusal::Says(CONFLICT, "Conflict!".to_owned()));
        for nonsense in ["", "AddPortMappingResponse", "<other/>", "<AddPortMappingResponse>"] {
            let refused = understood("AddPortMapping", answer(200, nonsense)).unwrap_err();
            assert!(matches!(refused, Refusal::Failed(_)), "{nonsense}: {refused:?}");
        }
        assert!(understood("AddPortMapping", answer(404, fine)).is_err());
    }
}
