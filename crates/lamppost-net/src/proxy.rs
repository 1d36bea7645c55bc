//! The PROXY protocol: who the client of a proxy is, in version 1 and 2
//! (`HAProxy`, The PROXY protocol, versions 1 & 2).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, with its CRLF (§2.1).
const V1_BYTES_MAX: usize = 107;
/// What a header of version 2 begins with (§2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 2 that is taken: addresses and some TLVs.
const V2_BYTES_MAX: usize = 16 + 2048;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a header; this many more bytes are needed at least.
    Incomplete(usize),
    /// A whole header of `length` bytes.
    Complete {
        /// The client's address; nothing when the proxy speaks for itself.
        source: Option<SocketAddr>,
        /// The header's length in bytes.
        length: usize,
    },
    /// No header.
    Invalid,
}

/// Why a header could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It did not come in time.
    #[error("the proxy sent no PROXY header in time")]
    Timeout,
    /// The bytes are no header.
    #[error("the proxy sent something that is no PROXY header")]
    Invalid,
    /// The connection ended or broke.
    #[error("the connection ended before the PROXY header")]
    Read(#[source] io::Error),
}

/// Reads a header and not a byte more.
///
/// # Errors
/// When no valid header comes in time.
pub async fn read_header<S>(
    stream: &mut S,
    patience: Duration,
) -> Result<Option<SocketAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    let reading = async {
        let mut header = Vec::new();
        loop {
            match parse(&header) {
                Progress::Incomplete(more) => {
                    let from = header.len();
                    header.resize(from + more, 0);
                    stream.read_exact(&mut header[from..]).await.map_err(HeaderError::Read)?;
                }
                Progress::Complete { source, .. } => return Ok(source),
                Progress::Invalid => return Err(HeaderError::Invalid),
            }
        }
    };
    tokio::time::timeout(patience, reading).await.unwrap_or(Err(HeaderError::Timeout))
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Progress {
    if bytes.starts_with(b"PROXY ") {
        parse_v1(bytes)
    } else if bytes.starts_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if b"PROXY ".starts_with(bytes) {
        Progress::Incomplete(b"PROXY ".len() - bytes.len())
    } else if V2_SIGNATURE.starts_with(bytes) {
        Progress::Incomplete(V2_SIGNATURE.len() - bytes.len())
    } else {
        Progress::Invalid
    }
}

fn parse_v1(bytes: &[u8]) -> Progress {
    let head = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(line_feed) = head.iter().position(|&byte| byte == b'\n') else {
        // A header ends with CRLF: behind a CR one byte is missing, otherwise two at least.
        let more = if bytes.ends_with(b"\r") { 1 } else { 2 };
        let fits = bytes.len() + more <= V1_BYTES_MAX;
        return if fits { Progress::Incomplete(more) } else { Progress::Invalid };
    };
    let source = std::str::from_utf8(&head[..line_feed])
        .ok()
        .and_then(|line| line.strip_suffix('\r'))
        .and_then(parse_v1_line);
    match source {
        Some(Client(source)) => Progress::Complete { source, length: line_feed + 1 },
        None => Progress::Invalid,
    }
}

/// The client that a header names; nobody when the proxy does not know.
struct Client(Option<SocketAddr>);

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT` or `PROXY UNKNOWN …`.
fn parse_v1_line(line: &str) -> Option<Client> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Client(None));
    }
    let source: IpAddr = words.next()?.parse().ok()?;
    let destination: IpAddr = words.next()?.parse().ok()?;
    let source_port: u16 = words.next()?.parse().ok()?;
    let _destination_port: u16 = words.next()?.parse().ok()?;
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    let client = Client(Some(SocketAddr::new(source, source_port)));
    (fits && words.next().is_none()).then_some(client)
}

fn parse_v2(bytes: &[u8]) -> Progress {
    if bytes.len() < 16 {
        return Progress::Incomplete(16 - bytes.len());
    }
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > V2_BYTES_MAX || bytes[12] >> 4 != 2 {
        return Progress::Invalid;
    }
    if bytes.len() < length {
        return Progress::Incomplete(length - bytes.len());
    }
    let addresses = &bytes[16..length];
    let source = match (bytes[12] & 0xf, bytes[13]) {
        // LOCAL: the proxy's own connection, or a family that is not TCP over IP.
        (0, _) | (1, 0x00 | 0x31 | 0x32) => None,
        (1, 0x11) => {
            let Some(&[a, b, c, d, _, _, _, _, high, low]) = addresses.first_chunk() else {
                return Progress::Invalid;
            };
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (1, 0x21) => {
            let (Some(address), Some(&[high, low])) =
                (addresses.first_chunk::<16>(), addresses.get(32..34))
            else {
                return Progress::Invalid;
            };
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
        }
        _ => return Progress::Invalid,
    };
    Progress::Complete { source, length }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
        header.extend(addresses);
        header
    }

    #[track_caller]
    fn check(header: &[u8], source: Option<&str>) {
        let source = source.map(|source| source.parse().unwrap());
        let length = header.len();
        let mut bytes = header.to_vec();
        bytes.extend(b"EHLO x\r\n");
        assert_eq!(parse(&bytes), Progress::Complete { source, length });
        // However the header is cut, what is asked for never reaches beyond it.
        for cut in 0..length {
            match parse(&header[..cut]) {
                Progress::Incomplete(more) => assert!(more > 0 && cut + more <= length),
                other => panic!("{other:?} after {cut} bytes"),
            }
        }
    }

    #[test]
    fn headers_of_both_versions_are_read() {
        check(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n", Some("192.0.2.7:40000"));
        check(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", Some("[2001:db8::7]:40000"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", None);
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x9c, 0x40, 0, 25];
        check(&v2(1, 0x11, &v4), Some("192.0.2.7:40000"));
        check(&v2(0, 0x11, &v4), None);
        check(&v2(1, 0x11, &[&v4[..], b"\x04\x00\x01x"].concat()), Some("192.0.2.7:40000"));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 25;
        check(&v2(1, 0x21, &v6), Some("[::1]:25"));
    }

    #[test]
    fn what_is_no_header_is_invalid() {
        for bytes in [
            &b"EHLO x\r\n"[..],
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25 9\r\n",
            b"PROXY TCP4 2001:db8::7 192.0.2.1 40000 25\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 25\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\n",
            &v2(1, 0x11, b"short"),
            &v2(5, 0x11, &[0; 12]),
            &[b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
        ] {
            assert_eq!(parse(bytes), Progress::Invalid, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(bytes: Vec<u8>, signed: bool) {
            let bytes = if signed { [&V2_SIGNATURE[..], &bytes].concat() } else { bytes };
            if let Progress::Complete { length, .. } = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn a_printed_header_is_read_back(a: [u8; 4], b: [u8; 4], port: u16) {
            let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
            let header = format!("PROXY TCP4 {a} {b} {port} 25\r\n");
            let source = Some(SocketAddr::new(a.into(), port));
            let complete = Progress::Complete { source, length: header.len() };
            prop_assert_eq!(parse(header.as_bytes()), complete);
        }
    }

    #[tokio::test]
    async fn only_the_header_is_taken_from_the_stream() {
        let bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\nEHLO x\r\n";
        let mut stream = &bytes[..];
        let source = read_header(&mut stream, Duration::from_secs(1)).await.unwrap();
        assert_eq!(source, Some("192.0.2.7:40000".parse().unwrap()));
        assert_eq!(stream, b"EHLO x\r\n");
    }
}
