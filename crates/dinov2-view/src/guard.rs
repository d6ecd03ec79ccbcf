//! Access control: checks every request and sets the security headers of every response.
//!
//! Other web sites in a viewer's browser are kept out: without a token, `Host` must name this machine (against DNS rebinding);
//! requests that another site caused are refused (`Origin`, `Sec-Fetch-Site`); the response headers restrict content to this site.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::config::{Access, is_loopback};
use crate::connections::{Purpose, Slot, TrackedBody};
use crate::limits::WRONG_TOKEN_DELAY;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// Allows the page its own files, its socket, and pictures that its script makes; nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

pub(crate) async fn guard(
    State(shared): State<Arc<Shared>>,
    Extension(slot): Extension<Slot>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&shared, &request) {
        Ok(cookie) => {
            let mut response = serve_request(&slot, request, next).await;
            if let Some(cookie) = cookie {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Err(refused) => {
            // The connection stays idle meanwhile, so that wrong tokens cannot use up the slots.
            if refused == Refusal::Token {
                tokio::time::sleep(WRONG_TOKEN_DELAY).await;
            }
            refused.into_response()
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Serves an authorised request; its connection stays active until the response is sent.
async fn serve_request(slot: &Slot, request: Request, next: Next) -> Response {
    let purpose = match request.uri().path() {
        "/healthz" | "/metrics" => Purpose::Monitoring,
        _ => Purpose::Ordinary,
    };
    let Some(active) = slot.begin_request(purpose) else { return Refusal::Busy.into_response() };
    let response = next.run(request).await;
    response.map(|body| Body::new(TrackedBody { body, _request: active }))
}

/// Checks a request. Returns the cookie to set if the token came in the URL.
fn admit(shared: &Shared, request: &Request) -> Result<Option<HeaderValue>, Refusal> {
    let headers = request.headers();
    let host = text(headers, HOST).ok_or(Refusal::Host)?;
    if is_loopback(shared.address)
        && !matches!(shared.config.access, Access::Token(_))
        && !names_loopback(host)
    {
        return Err(Refusal::Host);
    }
    if let Some(origin) = headers.get(ORIGIN)
        && !same_host(origin, host)
    {
        return Err(Refusal::Origin);
    }
    // A link on another site may open the page, but may not use its parts.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if request.uri().path() != "/" && !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(Refusal::Site);
    }
    match &shared.config.access {
        Access::Local | Access::Insecure => Ok(None),
        Access::Token(token) => check_token(token, shared.address.port(), request),
    }
}

fn check_token(token: &str, port: u16, request: &Request) -> Result<Option<HeaderValue>, Refusal> {
    let right = |given: &str| bool::from(given.as_bytes().ct_eq(token.as_bytes()));
    let query = request.uri().query().unwrap_or_default();
    if query.split('&').filter_map(|pair| pair.strip_prefix("token=")).any(right) {
        // Cookies are shared by all ports of a host, and several pages may run on one machine.
        let cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", cookie_name(port));
        return Ok(HeaderValue::from_str(&cookie).ok());
    }
    let bearer = text(request.headers(), AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let name = cookie_name(port);
    let cookies = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut ours = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(name.as_str())?.strip_prefix('='));
    if bearer.is_some_and(right) || ours.any(right) { Ok(None) } else { Err(Refusal::Token) }
}

fn cookie_name(port: u16) -> String {
    format!("dinov2_view_{port}")
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// True for `http://HOST` and `https://HOST`, where HOST is the `Host` header with its port.
fn same_host(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// True if `host` is `localhost` or a loopback address. Any port is accepted, because a tunnel may use another.
fn names_loopback(host: &str) -> bool {
    let has_port = |rest: &str| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return has_port(rest) && address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]", "[::1]:9"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::2]:80",
        ] {
            assert!(!names_loopback(host), "{host}");
        }
        for host in ["localhost:x", "[::1]x", "[::1", "::1", "localhost:99999", "user@localhost"] {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn origins_of_this_site() {
        let same = |origin: &'static str, host| same_host(&HeaderValue::from_static(origin), host);
        assert!(same("http://localhost:8080", "localhost:8080"));
        assert!(same("https://Robot.example", "robot.example"));
        for other in ["null", "http://localhost", "http://localhost:8081", "file://localhost:8080", ""] {
            assert!(!same(other, "localhost:8080"), "{other}");
        }
    }
}
