//! A hub on the loopback: `resolve` with etag, commit and range, a redirect to a "CDN" for large files, and faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server holds and how it misbehaves.
#[derive(Default)]
pub(super) struct Behaviour {
    /// `OWNER/NAME/FILE` and its bytes.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Large files: sent by redirect, named by their sha256.
    pub(super) large: Vec<String>,
    /// Breaks the connection after so many bytes of a large file's body, so many times.
    pub(super) cut: Option<(usize, usize)>,
    /// Announces this sha256 instead of the true one.
    pub(super) announced_sha256: Option<String>,
    /// Announces this etag for small files.
    pub(super) announced_etag: Option<String>,
    /// Token without which everything is 401.
    pub(super) token: Option<String>,
    /// Repositories that moved: old name, new name.
    pub(super) moved: Option<(String, String)>,
    /// `PATH RANGE` of every request.
    pub(super) log: Vec<String>,
}

pub(super) struct Server {
    pub(super) endpoint: String,
    pub(super) state: Arc<Mutex<Behaviour>>,
}

struct Request {
    path: String,
    range_from: Option<usize>,
    range_to: Option<usize>,
    token: Option<String>,
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut_at: Option<usize>,
}

impl Server {
    /// Serves until the test process ends.
    pub(super) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(behaviour));
        let (shared, base) = (state.clone(), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own business.
                let _ = answer(stream, &shared, &base);
            }
        });
        Self { endpoint, state }
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().expect("state").log.clone()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<Behaviour>, base: &str) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let response = respond(&request, &mut state.lock().expect("state"), base);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body[..response.cut_at.unwrap_or(response.body.len())])?;
    stream.flush()
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, range_from: None, range_to: None, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (from, to) = value.trim_start_matches("bytes=").split_once('-').expect("a range");
                request.range_from = from.parse().ok();
                request.range_to = to.parse().ok();
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Ok(request)
}

fn respond(request: &Request, state: &mut Behaviour, base: &str) -> Response {
    let range = request.range_from.map(|from| format!(" {from}")).unwrap_or_default();
    state.log.push(format!("{}{range}", request.path));
    let refuse = |status| Response { status, headers: Vec::new(), body: b"no".to_vec(), cut_at: None };
    if let Some(name) = request.path.strip_prefix("/cdn/") {
        let Some(bytes) = state.files.get(name).cloned() else { return refuse(404) };
        let mut response = ranged(&bytes, request);
        // Requests for one byte ask for the size only.
        if let Some((after, times)) = state.cut.filter(|&(_, times)| times > 0 && response.body.len() > 1) {
            state.cut = Some((after, times - 1));
            response.cut_at = Some(after.min(response.body.len()));
        }
        return response;
    }
    if state.token.is_some() && state.token != request.token {
        return refuse(if request.token.is_some() { 403 } else { 401 });
    }
    let Some((repository, rest)) = request.path[1..].split_once("/resolve/") else { return refuse(404) };
    if let Some((_, new)) = state.moved.as_ref().filter(|(old, _)| old == repository) {
        let headers = vec![("Location", format!("/{new}/resolve/{rest}"))];
        return Response { status: 307, headers, body: Vec::new(), cut_at: None };
    }
    let Some((revision, file)) = rest.split_once('/') else { return refuse(404) };
    let name = format!("{repository}/{file}");
    let Some(bytes) = state.files.get(&name).filter(|_| revision == "main") else { return refuse(404) };
    if state.large.contains(&name) {
        let sha256 = state.announced_sha256.clone().unwrap_or_else(|| hex(&Sha256::digest(bytes)));
        let headers = vec![
            ("Location", format!("{base}/cdn/{name}")),
            ("X-Linked-ETag", format!("\"{sha256}\"")),
            ("X-Linked-Size", bytes.len().to_string()),
            ("X-Repo-Commit", COMMIT.to_owned()),
        ];
        return Response { status: 302, headers, body: Vec::new(), cut_at: None };
    }
    let etag = state.announced_etag.clone().unwrap_or_else(|| hex(&Sha256::digest(bytes))[..40].to_owned());
    let mut response = ranged(bytes, request);
    response.headers.push(("ETag", format!("\"{etag}\"")));
    response.headers.push(("X-Repo-Commit", COMMIT.to_owned()));
    response
}

fn ranged(bytes: &[u8], request: &Request) -> Response {
    let Some(from) = request.range_from else {
        return Response { status: 200, headers: Vec::new(), body: bytes.to_vec(), cut_at: None };
    };
    if from >= bytes.len() {
        let headers = vec![("Content-Range", format!("bytes */{}", bytes.len()))];
        return Response { status: 416, headers, body: Vec::new(), cut_at: None };
    }
    let to = request.range_to.map_or(bytes.len() - 1, |to| to.min(bytes.len() - 1));
    let headers = vec![("Content-Range", format!("bytes {from}-{to}/{}", bytes.len()))];
    Response { status: 206, headers, body: bytes[from..=to].to_vec(), cut_at: None }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
