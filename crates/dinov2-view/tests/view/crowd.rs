//! More connections than there are places: who stays and who goes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Fed, LONG, TOKEN, config, get, read_head, send};
use dinov2_view::{Access, limits};

/// An answer that came because a place was made, not because a connection ran out of time.
const SOON: Duration = limits::HEAD_TIMEOUT.checked_div(2).unwrap();

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// The statuses of health, metrics and page, which must all come soon.
fn statuses(address: SocketAddr, headers: &[&str]) -> [u16; 3] {
    ["/healthz", "/metrics", "/"].map(|path| {
        let asked = Instant::now();
        let status = get(address, path, headers).status;
        assert!(asked.elapsed() < SOON, "{path} after {:?}", asked.elapsed());
        status
    })
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn token() -> Access {
    Access::Token(TOKEN.into())
}

#[test]
fn silent_connections_hold_nothing() {
    for access in [Access::Local, token()] {
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let headers: &[&str] = if access == Access::Local { &[] } else { &[&bearer] };
        let fed = Fed::new(config(access));
        // Someone looks all the time.
        let mut viewer = send(fed.address(), "/stream.mjpg", headers);
        assert_eq!(read_head(&mut viewer).0, 200);
        let mut silent: Vec<TcpStream> =
            (0..3 * limits::MAX_CONNECTIONS).map(|_| connect(fed.address())).collect();
        let [health, metrics, page] = statuses(fed.address(), headers);
        // No statistics are given here, so health is bad after a while.
        assert!([200, 503].contains(&health) && (metrics, page) == (200, 200));
        let asked = Instant::now();
        assert!(is_closed(&mut silent[0]) && asked.elapsed() < SOON, "the longest wait is not ended");
        let mut seen = vec![0; 200 << 10];
        viewer.read_exact(&mut seen).expect("the one who looks goes on");
    }
}

#[test]
fn heads_that_drip_hold_nothing() {
    let fed = Fed::new(config(Access::Local));
    let address = fed.address();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let start = || {
                    let mut stream = connect(address);
                    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Drip: ");
                    stream
                };
                let mut dripping: Vec<TcpStream> = (0..limits::MAX_CONNECTIONS).map(|_| start()).collect();
                while !ended.load(Ordering::Relaxed) {
                    for stream in &mut dripping {
                        if stream.write_all(b"x").is_err() {
                            *stream = start();
                        }
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..5 {
            assert_eq!(statuses(address, &[])[1..], [200, 200]);
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn wrong_tokens_hold_nothing() {
    let fed = Fed::new(config(token()));
    let ask = |_| {
        let mut stream = connect(fed.address());
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong-wrong\r\n\r\n";
        // One that was ended meanwhile.
        let _ = stream.write_all(request.repeat(20).as_bytes());
        stream
    };
    let guessing: Vec<TcpStream> = (0..2 * limits::MAX_CONNECTIONS).map(ask).collect();
    assert_eq!(statuses(fed.address(), &[&format!("Authorization: Bearer {TOKEN}")])[1..], [200, 200]);
    drop(guessing);
}

#[test]
fn those_that_take_no_answer_hold_nothing() {
    let fed = Fed::new(config(Access::Local));
    let ask = |_| {
        let mut stream = connect(fed.address());
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let request = "GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // Far more answers than fit into the system's buffers.
        let _ = stream.write_all(request.repeat(2000).as_bytes());
        stream
    };
    let full: Vec<TcpStream> = (0..2 * limits::MAX_CONNECTIONS).map(ask).collect();
    assert_eq!(statuses(fed.address(), &[])[1..], [200, 200]);
    drop(full);
}

#[test]
fn viewers_leave_places_to_health_and_metrics() {
    let mut many = config(Access::Local);
    many.max_clients = 1000;
    let fed = Fed::new(many);
    let mut streams: Vec<_> =
        (0..limits::MAX_CONNECTIONS).map(|_| send(fed.address(), "/stream.mjpg", &[])).collect();
    let seen: Vec<u16> = streams.iter_mut().map(|stream| read_head(stream).0).collect();
    let served = limits::MAX_CONNECTIONS - limits::RESERVED_CONNECTIONS;
    assert!(
        seen[..served].iter().all(|status| *status == 200)
            && seen[served..].iter().all(|status| *status == 503)
    );
    let [_, metrics, page] = statuses(fed.address(), &[]);
    assert_eq!((metrics, page), (200, 503));
}

#[test]
fn a_proxy_on_this_machine_keeps_its_connections() {
    let fed = Fed::new(config(Access::Local));
    let mut kept: Vec<TcpStream> = (0..limits::MAX_CONNECTIONS - 4).map(|_| connect(fed.address())).collect();
    for _ in 0..2 {
        for stream in &mut kept {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = [0; 16 << 10];
            let got = stream.read(&mut answer).unwrap();
            assert!(answer[..got].starts_with(b"HTTP/1.1 200 "), "a connection of the proxy was ended");
        }
    }
}
