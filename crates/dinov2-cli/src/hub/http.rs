//! HTTP requests to a hub: token, redirects, timeouts.
//!
//! The hub is not trusted: it may redirect to any address, send endless data, or send nothing. What it announces about a file is
//! checked in `fetch.rs`.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RANGE, USER_AGENT};
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::{Agent, Body};

/// Maximum number of redirects of one request.
const MAX_REDIRECTS: usize = 5;

/// Timeouts of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Timeout for connecting.
    pub(super) connect: Duration,
    /// Timeout for the head of a response, and for each read of its body.
    pub(super) idle: Duration,
    /// Time in which a body must deliver [`Timeouts::LEAST_BYTES`].
    pub(super) window: Duration,
}

impl Timeouts {
    /// A body that delivers fewer bytes per window is stalled: 100 MB would take a day.
    const LEAST_BYTES: u64 = 64 << 10;
    /// The timeouts of `pull`.
    pub(super) const USUAL: Self = Self {
        connect: Duration::from_secs(15),
        idle: Duration::from_secs(30),
        window: Duration::from_secs(60),
    };
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum HttpError {
    /// An error status.
    Status(u16),
    /// No connection, a broken connection or a timeout. Another attempt may succeed.
    Connection(String),
    /// The response violates the protocol. Another attempt would fail as well.
    Protocol(String),
}

/// A client of one hub.
pub(super) struct Client {
    agent: Agent,
    /// Address of the hub, the only server that gets the token.
    origin: Origin,
    token: Option<String>,
    timeouts: Timeouts,
}

/// Scheme, host and port of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(address: &Uri) -> Option<Self> {
        let https = match address.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = address.host()?.to_ascii_lowercase();
        let port = address.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host, port })
    }
}

impl Client {
    /// `None` if the endpoint is not an http or https URL.
    pub(super) fn new(endpoint: &str, token: Option<&str>, timeouts: Timeouts) -> Option<Self> {
        let origin = Origin::of(&endpoint.parse().ok()?)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.idle))
            .timeout_per_read(Some(timeouts.idle))
            .accept_encoding("identity");
        let token = token.map(str::to_owned);
        Some(Self { agent: config.build().into(), origin, token, timeouts })
    }

    /// Requests the head of a file. Follows redirects until a response satisfies `is_final` or is not a redirect.
    pub(super) fn head(
        &self,
        address: &str,
        is_final: impl Fn(&HeaderMap) -> bool,
    ) -> Result<HeaderMap, HttpError> {
        self.follow(Method::HEAD, address, None, is_final).map(|answer| answer.into_parts().0.headers)
    }

    /// Requests a file from byte `from` on.
    pub(super) fn get(&self, address: &str, from: u64) -> Result<Download, HttpError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let answer = self.follow(Method::GET, address, range.as_deref(), |_| false)?;
        let partial = answer.status().as_u16() == 206;
        let (parts, body) = answer.into_parts();
        let start = if partial { range_start(&parts.headers) } else { Some(0) };
        match start {
            Some(start) if start == from || start == 0 => {
                Ok(Download { start, body: Steady::new(body, self.timeouts) })
            }
            _ => Err(HttpError::Protocol(format!("expected the bytes from {from} on, got another range"))),
        }
    }

    fn follow(
        &self,
        method: Method,
        address: &str,
        range: Option<&str>,
        is_final: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, HttpError> {
        let wrong = |address: &str| HttpError::Protocol(format!("expected a web address, got {address:?}"));
        let mut here: Uri = address.parse().map_err(|_| wrong(address))?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(&method, &here, range)?;
            let status = answer.status();
            if status.is_success() || (status.is_redirection() && is_final(answer.headers())) {
                return Ok(answer);
            }
            if !status.is_redirection() {
                return Err(HttpError::Status(status.as_u16()));
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location =
                location.ok_or_else(|| HttpError::Protocol(format!("{status} without an address")))?;
            here = next_address(&here, location)?;
        }
        Err(HttpError::Protocol(format!("expected at most {MAX_REDIRECTS} redirects")))
    }

    fn send(&self, method: &Method, to: &Uri, range: Option<&str>) -> Result<Response<Body>, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(to)
            .header(USER_AGENT, concat!("dinov2-edge/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = self.token.as_ref().filter(|_| Origin::of(to).as_ref() == Some(&self.origin)) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let request = request.body(()).map_err(|error| HttpError::Protocol(error.to_string()))?;
        self.agent.run(request).map_err(explain)
    }
}

/// The target of a redirect. Redirects from https to http are refused.
fn next_address(here: &Uri, location: &str) -> Result<Uri, HttpError> {
    let refuse = |why: &str| HttpError::Protocol(format!("redirect: {why}, got {location:?}"));
    let scheme = here.scheme_str().unwrap_or("https");
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        let authority = here.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{location}")
    } else {
        location.to_owned()
    };
    let next: Uri = absolute.parse().map_err(|_| refuse("expected an address"))?;
    let origin = Origin::of(&next).ok_or_else(|| refuse("expected http or https"))?;
    if scheme == "https" && !origin.https {
        return Err(refuse("expected to stay on https"));
    }
    Ok(next)
}

fn explain(error: ureq::Error) -> HttpError {
    match error {
        ureq::Error::StatusCode(status) => HttpError::Status(status),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            HttpError::Protocol(error.to_string())
        }
        _ => HttpError::Connection(error.to_string()),
    }
}

/// First byte of a partial response: `Content-Range: bytes FIRST-LAST/TOTAL`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// The number in `Content-Length`.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The response with a file.
pub(super) struct Download {
    /// Offset of the first byte: the requested one, or 0 if the server sends the whole file.
    pub(super) start: u64,
    /// The bytes.
    pub(super) body: Steady,
}

/// A body that fails if it is too slow.
pub(super) struct Steady {
    body: ureq::BodyReader<'static>,
    timeouts: Timeouts,
    since: Instant,
    bytes: u64,
}

impl Steady {
    fn new(body: Body, timeouts: Timeouts) -> Self {
        Self { body: body.into_reader(), timeouts, since: Instant::now(), bytes: 0 }
    }
}

impl Read for Steady {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(into)?;
        self.bytes += read as u64;
        let elapsed = self.since.elapsed();
        if elapsed >= self.timeouts.window {
            if self.bytes < Timeouts::LEAST_BYTES {
                let reason = format!("{} bytes in {} s", self.bytes, elapsed.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(here: &str, location: &str) -> Option<String> {
        next_address(&here.parse().unwrap(), location).ok().map(|address| address.to_string())
    }

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let here = "https://hub.example/a/b?c";
        assert_eq!(next(here, "/x?y=1").unwrap(), "https://hub.example/x?y=1");
        assert_eq!(next(here, "https://cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(next(here, "//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(next("http://127.0.0.1:80/a", "/b").unwrap(), "http://127.0.0.1:80/b");
    }

    #[test]
    fn redirects_to_other_protocols_are_refused() {
        for location in
            ["http://hub.example/x", "file:///etc/passwd", "ftp://x/y", "x y", "", "relative/path"]
        {
            assert_eq!(next("https://hub.example/a", location), None, "{location}");
        }
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |address: &str| Origin::of(&address.parse().unwrap());
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        for other in
            ["http://hub.example/a", "https://hub.example:444/a", "https://hub.example.evil.example/a"]
        {
            assert_ne!(origin("https://hub.example/a"), origin(other), "{other}");
        }
        // The part before the @ is not the host.
        assert_ne!(origin("https://hub.example/a"), origin("https://hub.example@evil.example/a"));
    }
}
