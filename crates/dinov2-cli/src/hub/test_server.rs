//! A hub on the loopback: `resolve` with etag, commit and range, a redirect to a "CDN" for large files, and faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of the server, and its faults.
#[derive(Default)]
pub(super) struct Behaviour {
    /// `OWNER/NAME/FILE` and its bytes.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Large files: sent by redirect, named by their sha256.
    pub(super) large: Vec<String>,
    /// Breaks the connection after this many bytes of a large file, this many times.
    pub(super) cut: Option<(usize, usize)>,
    /// Announces this sha256 instead of the true one.
    pub(super) announced_sha256: Option<String>,
    /// Announces this etag for small files.
    pub(super) announced_etag: Option<String>,
    /// Announces this commit.
    pub(super) announced_commit: Option<String>,
    /// Announces this size of large files.
    pub(super) announced_size: Option<u64>,
    /// Etag and commit for requests of a body, where they differ from those for the head.
    pub(super) second_face: Option<(String, String)>,
    /// Fault of the bodies of large files.
    pub(super) body: BodyFault,
    /// Redirects every request to this address and the requested path.
    pub(super) redirect_all: Option<String>,
    /// Redirects requests for the bytes of large files to another server.
    pub(super) cdn: Option<String>,
    /// Token without which everything is 401.
    pub(super) token: Option<String>,
    /// Repositories that moved: old name, new name.
    pub(super) moved: Option<(String, String)>,
    /// `PATH RANGE` of every request for a body.
    pub(super) log: Vec<String>,
    /// Tokens that were sent.
    pub(super) tokens: Vec<String>,
}

/// A fault of a body.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum BodyFault {
    #[default]
    None,
    /// Endless data after the content of the file.
    Endless,
    /// Half of the bytes, then silence.
    Stalls,
    /// A byte every so often.
    Drips,
}

pub(super) struct Server {
    pub(super) endpoint: String,
    pub(super) state: Arc<Mutex<Behaviour>>,
}

struct Request {
    is_head: bool,
    path: String,
    range_from: Option<usize>,
    token: Option<String>,
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut_at: Option<usize>,
    fault: BodyFault,
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
                let (state, base) = (shared.clone(), base.clone());
                // Clients may disconnect at any time.
                thread::spawn(move || answer(stream, &state, &base).ok());
            }
        });
        Self { endpoint, state }
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().expect("state").log.clone()
    }

    pub(super) fn tokens(&self) -> Vec<String> {
        self.state.lock().expect("state").tokens.clone()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<Behaviour>, base: &str) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let response = respond(&request, &mut state.lock().expect("state"), base);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    if response.fault != BodyFault::Endless {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.is_head {
        return stream.flush();
    }
    let body = &response.body;
    match response.fault {
        BodyFault::None => stream.write_all(&body[..response.cut_at.unwrap_or(body.len())])?,
        BodyFault::Endless => {
            stream.write_all(body)?;
            // Ends when the client disconnects.
            loop {
                stream.write_all(&[0; 1 << 16])?;
            }
        }
        BodyFault::Stalls => {
            stream.write_all(&body[..body.len() / 2])?;
            thread::sleep(Duration::from_secs(60));
        }
        BodyFault::Drips => {
            for byte in body.chunks(1) {
                stream.write_all(byte)?;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    stream.flush()
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { is_head: first.starts_with("HEAD"), path, range_from: None, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (from, _) = value.trim_start_matches("bytes=").split_once('-').expect("a range");
                request.range_from = from.parse().ok();
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Ok(request)
}

fn respond(request: &Request, state: &mut Behaviour, base: &str) -> Response {
    state.tokens.extend(request.token.clone());
    if !request.is_head {
        let range = request.range_from.map(|from| format!(" {from}")).unwrap_or_default();
        state.log.push(format!("{}{range}", request.path));
    }
    if let Some(elsewhere) = &state.redirect_all {
        return redirect(format!("{elsewhere}{}", request.path));
    }
    if let Some(name) = request.path.strip_prefix("/cdn/") {
        let Some(bytes) = state.files.get(name).cloned() else { return refuse(404) };
        let mut response = ranged(&bytes, request);
        response.fault = state.body;
        if let Some((after, times)) = state.cut.filter(|&(_, times)| times > 0 && !request.is_head) {
            state.cut = Some((after, times - 1));
            response.cut_at = Some(after.min(response.body.len()));
        }
        return response;
    }
    if state.token.is_some() && state.token != request.token {
        return refuse(if request.token.is_some() { 403 } else { 401 });
    }
    resolve(request, state, base)
}

fn resolve(request: &Request, state: &Behaviour, base: &str) -> Response {
    let Some((repository, rest)) = request.path[1..].split_once("/resolve/") else { return refuse(404) };
    if let Some((_, new)) = state.moved.as_ref().filter(|(old, _)| old == repository) {
        return redirect(format!("/{new}/resolve/{rest}"));
    }
    let Some((revision, file)) = rest.split_once('/') else { return refuse(404) };
    let name = format!("{repository}/{file}");
    let mut commit = state.announced_commit.clone().unwrap_or_else(|| COMMIT.to_owned());
    let has_revision = revision == "main" || revision == commit;
    let Some(bytes) = state.files.get(&name).filter(|_| has_revision) else { return refuse(404) };
    let mut harmful = None;
    if let Some((etag, second_commit)) = state.second_face.as_ref().filter(|_| !request.is_head) {
        commit.clone_from(second_commit);
        harmful = Some(etag.clone());
    }
    if state.large.contains(&name) {
        let sha256 = state.announced_sha256.clone().unwrap_or_else(|| hex(&Sha256::digest(bytes)));
        let size = state.announced_size.unwrap_or(bytes.len() as u64);
        let mut response = redirect(format!("{}/cdn/{name}", state.cdn.as_deref().unwrap_or(base)));
        response.headers.push(("X-Linked-ETag", format!("\"{}\"", harmful.unwrap_or(sha256))));
        response.headers.push(("X-Linked-Size", size.to_string()));
        response.headers.push(("X-Repo-Commit", commit));
        return response;
    }
    let etag = harmful.or_else(|| state.announced_etag.clone()).unwrap_or_else(|| git_sha1(bytes));
    let mut response = ranged(bytes, request);
    response.headers.push(("ETag", format!("\"{etag}\"")));
    response.headers.push(("X-Repo-Commit", commit));
    response
}

fn refuse(status: u16) -> Response {
    let (headers, body, fault) = (Vec::new(), b"no".to_vec(), BodyFault::None);
    Response { status, headers, body, cut_at: None, fault }
}

fn redirect(to: String) -> Response {
    let headers = vec![("Location", to)];
    Response { status: 302, headers, body: Vec::new(), cut_at: None, fault: BodyFault::None }
}

fn ranged(bytes: &[u8], request: &Request) -> Response {
    let whole =
        |status, headers, body| Response { status, headers, body, cut_at: None, fault: BodyFault::None };
    let Some(from) = request.range_from else { return whole(200, Vec::new(), bytes.to_vec()) };
    if from >= bytes.len() {
        return whole(416, vec![("Content-Range", format!("bytes */{}", bytes.len()))], Vec::new());
    }
    let headers = vec![("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))];
    whole(206, headers, bytes[from..].to_vec())
}

/// Git's own name of a file: `git hash-object`.
fn git_sha1(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
