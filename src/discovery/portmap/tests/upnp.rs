//! Against gateways that speak UPnP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::{Book, OUTSIDE, PORT, eventually, keep, map};

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

fn description() -> String {
    format!(
        "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
         <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>\
         <deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>\
         <deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>\
         <serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>\
         <controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd.xml</SCPDURL>\
         </service></serviceList></device></deviceList></device></deviceList></device></root>"
    )
}

fn scpd() -> String {
    let action = |name: &str, arguments: &[&str]| {
        let arguments: String = arguments
            .iter()
            .map(|a| format!("<argument><name>{a}</name><direction>in</direction></argument>"))
            .collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let add = [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ];
    let actions =
        [action("AddPortMapping", &add), action("DeletePortMapping", &add[..3]), action("GetExternalIPAddress", &[])];
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{}</actionList></scpd>",
        actions.concat()
    )
}

fn between<'a>(text: &'a str, tag: &str) -> &'a str {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map_or("", |(value, _)| value)
}

fn soap(action: &str, inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
         <u:{action}Response xmlns:u=\"{SERVICE}\">{inside}</u:{action}Response></s:Body></s:Envelope>"
    )
}

fn upnp(head: &str, body: &str, book: &mut Book) -> String {
    match head {
        h if h.starts_with("GET /root.xml") => description(),
        h if h.starts_with("GET /scpd.xml") => scpd(),
        h if h.contains("#GetExternalIPAddress") => {
            let ip = format!("<NewExternalIPAddress>{}</NewExternalIPAddress>", book.outside);
            soap("GetExternalIPAddress", &ip)
        }
        h if h.contains("#AddPortMapping") => {
            assert_eq!((between(body, "NewProtocol"), between(body, "NewInternalClient")), ("TCP", "127.0.0.1"));
            book.asked += 1;
            let port = |tag: &str| between(body, tag).parse().unwrap();
            book.mapped.insert(port("NewInternalPort"), port("NewExternalPort"));
            soap("AddPortMapping", "")
        }
        h if h.contains("#DeletePortMapping") => {
            let port: u16 = between(body, "NewExternalPort").parse().unwrap();
            book.mapped.retain(|_, outside| *outside != port);
            book.given_back += 1;
            soap("DeletePortMapping", "")
        }
        _ => String::new(),
    }
}

/// A gateway that speaks UPnP at an address; gives where it listens for questions.
async fn upnp_at(at: Ipv4Addr, answer: impl Fn(&str, &str) -> String + Clone + Send + Sync + 'static) -> SocketAddr {
    let http = TcpListener::bind((at, 0)).await.unwrap();
    let ssdp = UdpSocket::bind((at, 0)).await.unwrap();
    let (web, asked) = (http.local_addr().unwrap(), ssdp.local_addr().unwrap());
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = ssdp.recv_from(&mut buffer).await {
            let found = format!(
                "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
                 LOCATION: http://{web}/root.xml\r\n\r\n"
            );
            let _ = ssdp.send_to(found.as_bytes(), from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = http.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                loop {
                    let Ok(n @ 1..) = stream.read(&mut buffer).await else { return };
                    text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .lines()
                        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() < length.unwrap_or(0usize) {
                        continue;
                    }
                    let body = answer(head, body);
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                    return;
                }
            });
        }
    });
    asked
}

#[tokio::test]
async fn a_port_by_upnp() {
    let (at, book) = (Ipv4Addr::LOCALHOST, Book::new());
    let own = Arc::clone(&book);
    let ssdp = upnp_at(at, move |head, body| upnp(head, body, &mut own.lock().unwrap())).await;
    let mut kept = keep(map(at, ssdp));
    assert_eq!(kept.mapped().await, ((OUTSIDE, PORT).into(), "UPnP"));
    assert_eq!(book.lock().unwrap().mapped, BTreeMap::from([(PORT, PORT)]));
    // It forgets, and hears of it again.
    book.lock().unwrap().mapped.clear();
    eventually("it is made again", || book.lock().unwrap().mapped.len() == 1).await;
    book.lock().unwrap().outside = Ipv4Addr::new(203, 0, 113, 9);
    assert_eq!(kept.mapped().await.0.ip(), IpAddr::from([203, 0, 113, 9]));
    kept.ends().await;
    let book = book.lock().unwrap();
    assert_eq!((book.mapped.len(), book.given_back), (0, 1));
}

#[tokio::test]
async fn upnp_from_another_than_the_gateway_or_in_nonsense_is_nothing() {
    let another = upnp_at(Ipv4Addr::new(127, 53, 1, 8), {
        let book = Book::new();
        move |head, body| upnp(head, body, &mut book.lock().unwrap())
    })
    .await;
    let mut kept = keep(map(Ipv4Addr::new(127, 53, 1, 7), another));
    let why = kept.failed().await;
    assert!(why.contains("which is not the gateway 127.53.1.7"), "{why}");
    kept.ends().await;
    for nonsense in ["", "<", "<root/>", "no xml \u{1b}[31m", "<root><device><serviceList><service><controlURL>/x"] {
        let ssdp = upnp_at(Ipv4Addr::LOCALHOST, move |_, _| nonsense.to_owned()).await;
        let mut kept = keep(map(Ipv4Addr::LOCALHOST, ssdp));
        let why = kept.failed().await;
        assert!(why.contains("UPnP") && !why.chars().any(char::is_control), "{nonsense}: {why}");
        kept.ends().await;
    }
    // Without an end: what is read of it is bounded, by bytes and by time.
    let ssdp = upnp_at(Ipv4Addr::LOCALHOST, |_, _| "<root>".repeat(4 * 1024 * 1024)).await;
    let mut kept = keep(map(Ipv4Addr::LOCALHOST, ssdp));
    kept.failed().await;
    kept.ends().await;
}
