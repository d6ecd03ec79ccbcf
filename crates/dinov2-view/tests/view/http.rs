//! Pages, pictures and numbers by plain HTTP, and the limits of all of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{
    Answer, Fed, HEIGHT, LONG, Scene, TOKEN, WIDTH, config, get, read_head, read_headers, send, until,
};
use dinov2_io::{Frame, LiveStats, Quantiles, decode_still};
use dinov2_view::{Access, View, ViewConfig, ViewError};

fn token() -> Access {
    Access::Token(TOKEN.into())
}

fn decoded(file: &[u8]) -> Frame {
    let mut frame = Frame::new();
    decode_still(file, &mut frame).unwrap();
    frame
}

/// Part after part of a stream.
fn next_part(reader: &mut impl BufRead) -> (u64, Vec<u8>) {
    let headers = read_headers(reader);
    let value = |name: &str| &headers.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(value("content-type"), "image/jpeg");
    let mut jpeg = vec![0; value("content-length").parse().unwrap()];
    reader.read_exact(&mut jpeg).unwrap();
    let mut ends = [0; 2];
    reader.read_exact(&mut ends).unwrap();
    assert_eq!(&ends, b"\r\n");
    boundary(reader);
    (value("x-frame-index").parse().unwrap(), jpeg)
}

fn boundary(reader: &mut impl BufRead) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "--dinov2-view-frame\r\n");
}

/// A stream that is served: the head was read.
fn stream(fed: &Fed, path: &str) -> BufReader<TcpStream> {
    let mut reader = send(fed.address(), path, &[]);
    let (status, headers) = read_head(&mut reader);
    assert_eq!(status, 200);
    let content_type =
        ("content-type".to_owned(), "multipart/x-mixed-replace; boundary=dinov2-view-frame".to_owned());
    assert!(headers.contains(&content_type), "{headers:?}");
    boundary(&mut reader);
    reader
}

/// Largest difference of two pictures.
fn worst(got: &[u8], expected: &[u8]) -> u8 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| got.abs_diff(*expected)).max().unwrap()
}

#[test]
fn the_page_brings_everything_that_it_uses() {
    let fed = Fed::new(config(Access::Local));
    let files = [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")].map(
        |(path, kind)| {
            let answer = get(fed.address(), path, &[]);
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}");
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            answer.text().to_owned()
        },
    );
    for text in &files {
        assert!(!text.contains("http://") && !text.contains("https://"), "an address elsewhere");
    }
    // What the policy would refuse, and what could carry text of others into the page.
    assert!(!files[0].contains("<style") && !files[0].contains("style=") && !files[0].contains("onclick"));
    assert_eq!(files[0].matches("<script").count(), files[0].matches("<script src=\"page.js\"").count());
    for risky in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("] {
        assert!(!files[2].contains(risky), "{risky}");
    }
    assert_eq!(get(fed.address(), "/../Cargo.toml", &[]).status, 404);
    assert_eq!(get(fed.address(), "/page/page.js", &[]).status, 404);
}

#[test]
fn snapshots_are_exact() {
    let fed = Fed::new(config(Access::Local));
    let picture = |view: &str| {
        let answer = get(fed.address(), &format!("/snapshot?view={view}"), &[]);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        let scene = Scene::new(answer.header("x-frame-index").unwrap().parse().unwrap());
        assert_eq!(answer.header("x-capture-ns"), Some(scene.capture_ns().to_string().as_str()));
        (decoded(&answer.body), scene)
    };
    // Pixel by pixel, from the definition: a patch is 14 pixels wide and high.
    let expected = |scene: &Scene, parts: &[&str]| {
        let mut pixels = Vec::new();
        for y in 0..HEIGHT {
            for part in parts {
                for x in 0..WIDTH {
                    for channel in 0..3 {
                        let camera = u16::from(scene.pixels[(y * WIDTH + x) * 3 + channel]);
                        let colour = u16::from(scene.colours[(y / 14 * 6 + x / 14) * 3 + channel]);
                        pixels.push(match *part {
                            "camera" => camera,
                            "pca" => colour,
                            _ => (camera + colour) / 2,
                        } as u8);
                    }
                }
            }
        }
        pixels
    };
    for view in ["camera", "pca", "overlay", "all"] {
        let (frame, scene) = picture(view);
        let parts = if view == "all" { &["camera", "pca", "overlay"][..] } else { &[view] };
        assert_eq!((frame.width_px, frame.height_px), (WIDTH * parts.len(), HEIGHT));
        assert_eq!(frame.pixels, expected(&scene, parts), "{view}");
    }
    assert_eq!(get(fed.address(), "/snapshot?view=everything", &[]).status, 400);
    assert_eq!(get(fed.address(), "/snapshot?camera=1", &[]).status, 404);
    assert_eq!(get(fed.address(), "/snapshot?camera=-1", &[]).status, 400);
}

#[test]
fn streams_go_on_with_newer_frames() {
    let fed = Fed::new(config(Access::Local));
    let mut reader = stream(&fed, "/stream.mjpg?view=camera");
    let mut before = None;
    for _ in 0..5 {
        let (index, jpeg) = next_part(&mut reader);
        assert!(before.is_none_or(|before| index > before), "{index} after {before:?}");
        before = Some(index);
        let (frame, scene) = (decoded(&jpeg), Scene::new(index));
        assert_eq!((frame.width_px, frame.height_px), (WIDTH, HEIGHT));
        assert!(worst(&frame.pixels, &scene.pixels) <= 24, "not the frame that it says");
    }
    let (_, jpeg) = next_part(&mut stream(&fed, "/stream.mjpg"));
    assert_eq!(decoded(&jpeg).width_px, 3 * WIDTH);
}

#[test]
fn frames_are_wanted_while_someone_looks_and_not_too_often() {
    let mut config = config(Access::Local);
    config.max_fps = 10.0;
    let view = View::start(config).unwrap();
    assert!(!view.wants_frame(0) && !view.wants_frame(7));
    let mut reader = send(view.address(), "/stream.mjpg", &[]);
    until("a viewer makes frames wanted", || view.wants_frame(0));
    let began = Instant::now();
    let mut taken = 0;
    until("some frames are taken", || {
        if view.wants_frame(0) {
            Scene::new(taken).show(&view);
            assert!(!view.wants_frame(0) || began.elapsed() > Duration::from_millis(100), "the next at once");
            taken += 1;
        }
        taken == 6
    });
    // The first is due at once, and one more may make up for a late one.
    assert!(began.elapsed() >= Duration::from_millis(400), "6 frames in {:?}", began.elapsed());
    assert_eq!(read_head(&mut reader).0, 200);
    drop(reader);
    until("nobody looks any longer", || {
        Scene::new(1).show(&view);
        std::thread::sleep(Duration::from_millis(100));
        !view.wants_frame(0)
    });
}

#[test]
fn tokens_open_everything_and_nothing_opens_without() {
    let fed = Fed::new(config(token()));
    let address = fed.address();
    let paths = ["/", "/page.js", "/page.css", "/stream.mjpg", "/snapshot", "/ws", "/metrics", "/healthz"];
    std::thread::scope(|scope| {
        for path in paths {
            scope.spawn(move || {
                for headers in [&[][..], &["Authorization: Bearer wrong-wrong"], &["Cookie: token=wrong"]] {
                    let answer = get(address, path, headers);
                    assert_eq!(
                        (answer.status, answer.header("set-cookie")),
                        (401, None),
                        "{path} {headers:?}"
                    );
                    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                    assert!(!answer.text().contains(TOKEN));
                }
            });
        }
        for wrong in [&TOKEN[1..], "", &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
            let path = format!("/metrics?token={wrong}");
            scope.spawn(move || assert_eq!(get(address, &path, &[]).status, 401));
        }
    });
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(get(address, "/metrics", &[&bearer]).status, 200);
    let opened = get(address, &format!("/?camera=0&token={TOKEN}"), &[]);
    assert_eq!(opened.status, 200);
    let cookie = opened.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: other=1; {}; more=2", cookie.split(';').next().unwrap());
    let entered = get(address, "/snapshot", &[&cookie]);
    assert_eq!((entered.status, entered.header("set-cookie")), (200, None));
}

#[test]
fn other_sites_get_nothing() {
    let fed = Fed::new(config(Access::Local));
    let (address, port) = (fed.address(), fed.address().port());
    let status = |path: &str, headers: &[&str]| get(address, path, headers).status;
    // DNS rebinding: their name, our address.
    for path in ["/", "/metrics", "/snapshot"] {
        assert_eq!(status(path, &["Host: evil.example"]), 403, "{path}");
        assert_eq!(status(path, &[&format!("Host: evil.example:{port}")]), 403, "{path}");
        assert_eq!(status(path, &[&format!("Host: localhost:{port}")]), 200, "{path}");
    }
    let mut none = TcpStream::connect(address).unwrap();
    none.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_head(&mut BufReader::new(none)).0, 403);
    // Their page, our name.
    assert_eq!(status("/metrics", &["Origin: http://evil.example"]), 403);
    assert_eq!(status("/metrics", &["Origin: null"]), 403);
    assert_eq!(status("/metrics", &[&format!("Origin: http://{address}")]), 200);
    assert_eq!(status("/snapshot", &["Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(status("/snapshot", &["Sec-Fetch-Site: same-origin"]), 200);
    // A link to the page is fine.
    assert_eq!(status("/", &["Sec-Fetch-Site: cross-site"]), 200);
    assert!(get(address, "/metrics", &[]).header("access-control-allow-origin").is_none());
}

#[test]
fn more_clients_than_allowed_are_sent_away() {
    let mut config = config(Access::Local);
    config.max_clients = 2;
    let fed = Fed::new(config);
    let (first, _second) = (stream(&fed, "/stream.mjpg"), stream(&fed, "/stream.mjpg?view=pca"));
    for path in ["/stream.mjpg", "/snapshot"] {
        let refused = get(fed.address(), path, &[]);
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{path}");
    }
    assert_eq!(get(fed.address(), "/metrics", &[]).status, 200);
    drop(first);
    until("a seat is free again", || get(fed.address(), "/snapshot", &[]).status == 200);
}

#[test]
fn health_follows_the_frames() {
    let mut config = config(Access::Local);
    config.silence_timeout = Duration::from_millis(400);
    let view = View::start(config).unwrap();
    let health = || get(view.address(), "/healthz", &[]);
    let stats = |frames| LiveStats { frames, ..LiveStats::default() };
    let says = |answer: &Answer, status, word: &str| answer.status == status && answer.text().contains(word);
    view.update(&stats(0));
    until("no frame yet", || says(&health(), 503, "no frame yet"));
    let mut frames = 0;
    until("frames come", || {
        frames += 1;
        view.update(&stats(frames));
        says(&health(), 200, "ok")
    });
    until("the camera stands still", || {
        view.update(&stats(frames));
        says(&health(), 503, "no frame for")
    });
    until("the pipeline stands still", || says(&health(), 503, "no statistics from the pipeline for"));
}

/// name{labels} value, with HELP and TYPE before each name, as the text format 0.0.4 asks for.
fn samples(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut family, mut seen) = (Vec::new(), String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(!seen.contains(&family), "{family} twice");
            seen.push(family.clone());
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} "))).unwrap();
            assert!(["counter", "gauge", "summary"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(family.as_str()));
            samples.push((name.to_owned(), value.parse().unwrap()));
        }
    }
    samples
}

#[test]
fn metrics_tell_the_statistics() {
    let view = View::start(config(Access::Local)).unwrap();
    let metrics = || {
        let answer = get(view.address(), "/metrics", &[]);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        samples(answer.text())
    };
    assert!(metrics().contains(&("dinov2_frames_total".into(), 0.0)));
    let mut stats = LiveStats { uptime_s: 12.5, frames: 250, fps: 19.75, ..LiveStats::default() };
    stats.latency_ms = Quantiles { p50: 31.0, p95: 40.0, p99: 62.5 };
    (stats.drops.engine_busy, stats.drops.sink_busy, stats.drops.rate_limit) = (1, 2, 3);
    (stats.losses.stale, stats.losses.missed, stats.losses.corrupt, stats.losses.reopened) = (4, 5, 6, 7);
    assert!(!metrics().iter().any(|(name, _)| name.contains("temperature") || name.contains("throttled")));
    (stats.temperature_c, stats.throttled) = (Some(71.5), Some(true));
    stats.extract_ms.p99 = f64::INFINITY;
    view.update(&stats);
    let got = metrics();
    for (name, value) in [
        ("dinov2_frames_total", 250.0),
        ("dinov2_fps", 19.75),
        ("dinov2_uptime_seconds", 12.5),
        ("dinov2_latency_seconds{quantile=\"0.5\"}", 0.031),
        ("dinov2_latency_seconds{quantile=\"0.95\"}", 0.04),
        ("dinov2_latency_seconds{quantile=\"0.99\"}", 0.0625),
        ("dinov2_extract_seconds{quantile=\"0.99\"}", f64::INFINITY),
        ("dinov2_dropped_total{reason=\"engine_busy\"}", 1.0),
        ("dinov2_dropped_total{reason=\"sink_busy\"}", 2.0),
        ("dinov2_dropped_total{reason=\"rate_limit\"}", 3.0),
        ("dinov2_dropped_total{reason=\"stale\"}", 4.0),
        ("dinov2_dropped_total{reason=\"missed\"}", 5.0),
        ("dinov2_dropped_total{reason=\"corrupt\"}", 6.0),
        ("dinov2_source_reopened_total", 7.0),
        ("dinov2_temperature_celsius", 71.5),
        ("dinov2_throttled", 1.0),
        ("dinov2_view_clients", 0.0),
    ] {
        assert!(got.contains(&(name.to_owned(), value)), "{name} {value}: {got:?}");
    }
    assert!(get(view.address(), "/metrics", &[]).text().contains("{quantile=\"0.99\"} +Inf\n"));
}

#[test]
fn who_does_not_read_is_dropped_and_delays_nobody() {
    let mut config = config(Access::Local);
    config.stall_timeout = Duration::from_millis(500);
    let fed = Fed::new(config);
    // Reads its head and then nothing.
    let lazy = stream(&fed, "/stream.mjpg");
    let mut eager = stream(&fed, "/stream.mjpg?view=camera");
    let clients = || {
        let (_, count) = samples(get(fed.address(), "/metrics", &[]).text()).pop().unwrap();
        count
    };
    assert_eq!(clients(), 2.0);
    let began = Instant::now();
    // The system's buffers hold many small pictures, so it takes a while until the lazy one stalls.
    while clients() > 1.0 {
        let (index, _) = next_part(&mut eager);
        let newest = fed.shown.load(std::sync::atomic::Ordering::Relaxed);
        assert!(newest >= index);
        assert!(began.elapsed() < 4 * LONG, "the client that does not read is never dropped");
    }
    let shown = fed.shown.load(std::sync::atomic::Ordering::Relaxed);
    until("frames go on", || fed.shown.load(std::sync::atomic::Ordering::Relaxed) > shown + 10);
    next_part(&mut eager);
    drop(lazy);
}

#[test]
fn heads_that_never_end_are_cut_off() {
    let view = View::start(config(Access::Local)).unwrap();
    let mut slow = TcpStream::connect(view.address()).unwrap();
    slow.set_read_timeout(Some(LONG)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-More: ").unwrap();
    let mut rest = Vec::new();
    // Ends, with or without a word; a read that runs into its timeout would be an error.
    match slow.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    let mut huge = TcpStream::connect(view.address()).unwrap();
    let line = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(200 << 10));
    // The server may hang up before everything is written.
    let _ = huge.write_all(line.as_bytes());
    let mut answer = String::new();
    let _ = huge.read_to_string(&mut answer);
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(get(view.address(), "/", &[]).status, 200);
}

#[test]
fn stopping_cuts_everyone_off_and_frees_the_port() {
    let fed = Fed::new(config(Access::Local));
    let address = fed.address();
    let mut reader = stream(&fed, "/stream.mjpg");
    next_part(&mut reader);
    let view = fed.into_view();
    let taken = View::start(ViewConfig::new(address, Access::Local).unwrap());
    let Err(error @ ViewError::Bind { .. }) = taken else { panic!("bound twice") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let began = Instant::now();
    view.stop();
    // 100 ms are promised; a busy machine may take longer to give us a turn.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    assert!(TcpStream::connect(address).is_err());
    let again = Fed::new(ViewConfig::new(address, Access::Local).unwrap());
    next_part(&mut stream(&again, "/stream.mjpg"));
}
