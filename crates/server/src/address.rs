//! Where a request comes from: the address of its connection, or the one that a proxy on this machine names, if there is said to be
//! one. It is handed on in the request's `X-Forwarded-For`, in place of whatever the client has written there.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The name under which the address is handed on.
const ADDRESS: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request comes from, as [`arrive`] has found it out.
pub(crate) fn of(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(ADDRESS)?.to_str().ok()?.parse().ok()
}

/// What the proxy in front has written down last; what stands before that is its client's own word.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(ADDRESS).into_iter().next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?.trim();
    let with_port = || Some(last.parse::<SocketAddr>().ok()?.ip());
    let plain = last.trim_matches(['[', ']']).parse().ok();
    plain.or_else(with_port)
}

/// Finds out where a request comes from, and writes it down for those behind.
pub(crate) fn arrive(behind_proxy: bool, request: &mut Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
    let headers = request.headers_mut();
    let named = match peer {
        Some(peer) if behind_proxy && peer.is_loopback() => forwarded(headers),
        _ => None,
    };
    let found = named.map(|named| named.to_canonical()).or(peer);
    headers.remove(ADDRESS);
    let text = found.and_then(|found| HeaderValue::try_from(found.to_string()).ok());
    if let Some(text) = text {
        headers.insert(ADDRESS, text);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proxy_on_this_machine_is_believed() {
        let from = |behind_proxy, peer: &str, written: &[&str]| {
            let mut request = Request::new(axum::body::Body::empty());
            let peer: SocketAddr = peer.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            for written in written {
                let written = HeaderValue::from_str(written).unwrap();
                request.headers_mut().append(ADDRESS, written);
            }
            let found = arrive(behind_proxy, &mut request);
            assert_eq!(of(request.headers()), found);
            assert_eq!(request.headers().get_all(ADDRESS).iter().count(), 1);
            found.unwrap().to_string()
        };
        let own = "127.0.0.1:1";
        assert_eq!(from(false, own, &["192.0.2.1"]), "127.0.0.1");
        assert_eq!(from(true, "192.0.2.9:1", &["192.0.2.1"]), "192.0.2.9");
        assert_eq!(from(true, own, &["192.0.2.1"]), "192.0.2.1");
        let forged = ["10.0.0.1", "127.0.0.1, 192.0.2.1 , 192.0.2.2"];
        assert_eq!(from(true, "[::1]:1", &forged), "192.0.2.2");
        assert_eq!(from(true, own, &["::ffff:192.0.2.3"]), "192.0.2.3");
        assert_eq!(from(true, own, &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(from(true, own, &["192.0.2.4:80"]), "192.0.2.4");
        for nothing in [&[][..], &["unknown"], &[""], &["192.0.2.1,"]] {
            assert_eq!(from(true, own, nothing), "127.0.0.1");
        }
    }
}
