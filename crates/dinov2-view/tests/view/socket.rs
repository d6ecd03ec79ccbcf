//! `/ws`: what comes over it against what the scenes are, and what a client may send.

use std::net::TcpStream;
use std::time::Instant;

use crate::common::{DIM, Fed, GRID, HEIGHT, LONG, Scene, TOKEN, WIDTH, config, get, until};
use dinov2_io::{Frame, LiveStats, decode_still};
use dinov2_view::{Access, HEADER_BYTES, MAGIC, VERSION, View};
use half::f16;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, StatusCode};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

struct Client(WebSocket<TcpStream>);

/// A binary message, taken apart by the offsets in docs/live-page.md.
struct Packet {
    kind: u8,
    dtype: u8,
    grid: (usize, usize),
    scene: Scene,
    dim: usize,
    payload: Vec<u8>,
}

impl Packet {
    fn new(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((&bytes[..4], bytes[4]), (&MAGIC[..], VERSION));
        assert_eq!((bytes[7], u32_at(8)), (1, 0), "flags and camera");
        let (kind, grid) = (bytes[5], (u32_at(12), u32_at(16)));
        // Outputs of heads have grids of their own.
        assert!(kind == 5 || grid == (GRID.rows, GRID.cols), "{grid:?}");
        let scene = Scene::new(u64_at(24));
        assert_eq!(u64_at(32), scene.capture_ns());
        assert_eq!(f64::from_bits(u64_at(40)), scene.latency_ms());
        let payload = bytes[HEADER_BYTES..].to_vec();
        Self { kind, dtype: bytes[6], grid, scene, dim: u32_at(20), payload }
    }

    fn floats(&self) -> Vec<f32> {
        assert_eq!(self.dtype, 2);
        self.payload.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
    }
}

impl Client {
    fn new(view: &View) -> Self {
        let mut client = Self::with_headers(view, &[]).unwrap();
        let hello = client.answer("hello");
        assert_eq!(hello["version"], VERSION);
        client
    }

    fn with_headers(view: &View, headers: &[(&'static str, &str)]) -> Result<Self, StatusCode> {
        let mut request = format!("ws://{}/ws", view.address()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let stream = TcpStream::connect(view.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status()),
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next text of that type; others and packets are passed over.
    fn answer(&mut self, kind: &str) -> Value {
        let began = Instant::now();
        while began.elapsed() < LONG {
            if let Message::Text(text) = self.0.read().unwrap() {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] == kind {
                    return value;
                }
                assert_ne!(value["type"], "error", "{value}");
            }
        }
        panic!("no {kind}");
    }

    /// The next packet of that kind.
    fn packet(&mut self, kind: u8) -> Packet {
        let began = Instant::now();
        while began.elapsed() < LONG {
            if let Message::Binary(bytes) = self.0.read().unwrap() {
                let packet = Packet::new(&bytes);
                if packet.kind == kind {
                    return packet;
                }
            }
        }
        panic!("no packet of kind {kind}");
    }

    fn error_of(&mut self, message: Message) -> String {
        self.0.send(message).unwrap();
        self.error()
    }

    fn error(&mut self) -> String {
        self.answer("error")["message"].as_str().unwrap().to_owned()
    }

    /// Reads until the server hangs up.
    fn assert_closed(&mut self) {
        let began = Instant::now();
        while self.0.read().is_ok() {
            assert!(began.elapsed() < LONG, "still open");
        }
    }
}

fn fed() -> Fed {
    Fed::new(config(Access::Local))
}

#[test]
fn maps_are_the_similarity_to_the_picked_patch_while_frames_go_on() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    // Row 2, column 4 of 4 x 6; then a corner, whose outer edge belongs to it.
    for (x, y, row, col) in [(4.5 / 6.0, 2.5 / 4.0, 2, 4), (1.0, 1.0, 3, 5), (0.0, 0.0, 0, 0)] {
        client.send(&json!({"pick": {"x": x, "y": y}}));
        let picked = client.answer("picked");
        assert_eq!((&picked["row"], &picked["col"]), (&json!(row), &json!(col)));
        let origin = Scene::new(picked["frame"].as_u64().unwrap());
        let query = &origin.features.patches()[(row * GRID.cols + col) * DIM..][..DIM];
        for step in 0..4 {
            let packet = client.packet(1);
            assert_eq!((packet.dim, packet.scene.index == origin.index), (1, step == 0));
            let (got, expected) = (packet.floats(), packet.scene.similarities(query));
            assert_eq!(got.len(), expected.len());
            for (patch, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!((f64::from(*got) - expected).abs() < 1e-6, "patch {patch}: {got} not {expected}");
            }
            assert_eq!(got[row * GRID.cols + col] > 0.999_999, step == 0, "the frames do not differ");
        }
    }
    client.send(&json!({"unpick": true}));
    client.answer("unpicked");
    until("nobody wants frames any longer", || !fed.view.wants_frame(0));
}

#[test]
fn a_restarted_server_goes_on_with_the_feature_that_was_picked() {
    let first = fed();
    let mut before = Client::new(&first.view);
    before.send(&json!({"pick": {"x": 0.4, "y": 0.6}}));
    let picked = before.answer("picked");
    let (row, col) = (picked["row"].as_u64().unwrap() as usize, picked["col"].as_u64().unwrap() as usize);
    assert_eq!((row, col), (2, 2));
    let origin = Scene::new(picked["frame"].as_u64().unwrap());
    let query = &origin.features.patches()[(row * GRID.cols + col) * DIM..][..DIM];
    let sent: Vec<f32> = serde_json::from_value(picked["feature"].clone()).unwrap();
    assert_eq!(sent, query, "the feature is sent bit for bit");
    drop((before, first));

    let again = fed();
    let mut after = Client::new(&again.view);
    after.send(&json!({"query": picked["feature"]}));
    after.answer("queried");
    for _ in 0..4 {
        let packet = after.packet(1);
        for (got, expected) in packet.floats().iter().zip(packet.scene.similarities(query)) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} not {expected}");
        }
    }
    // Of another model.
    after.send(&json!({"query": vec![0.5; DIM + 1]}));
    let refused = after.error();
    assert!(refused.contains("19") && refused.contains("20"), "{refused}");
    until("a refused query wants no frames", || !again.view.wants_frame(0));
    after.send(&json!({"pick": {"x": 0.0, "y": 0.0}}));
    after.answer("picked");
}

#[test]
fn the_largest_feature_is_no_message_too_large() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    let feature = vec![-1.234_567_9e-10_f32; dinov2_core::limits::MAX_DIM];
    client.send(&json!({"query": feature}));
    assert!(client.error().contains("16384"));
}

#[test]
fn subscribers_get_pictures_and_features() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    client.send(&json!({"subscribe": "pictures"}));
    assert_eq!(client.answer("subscribed")["topic"], "pictures");
    let grid = client.answer("grid");
    let expected = json!({"type": "grid", "camera": 0, "rows": GRID.rows, "cols": GRID.cols, "dim": DIM,
        "width_px": WIDTH, "height_px": HEIGHT});
    assert_eq!(grid, expected);
    let colours = client.packet(4);
    assert_eq!((colours.dtype, colours.dim, &colours.payload), (0, 3, &colours.scene.colours));
    let picture = client.packet(3);
    assert_eq!((picture.dtype, picture.scene.index), (3, colours.scene.index));
    let mut frame = Frame::new();
    decode_still(&picture.payload, &mut frame).unwrap();
    assert_eq!((frame.width_px, frame.height_px), (WIDTH, HEIGHT));
    let errors = frame.pixels.iter().zip(&picture.scene.pixels).map(|(got, want)| got.abs_diff(*want));
    assert!(errors.max().unwrap() <= 24);

    client.send(&json!({"unsubscribe": "pictures"}));
    client.answer("unsubscribed");
    client.send(&json!({"subscribe": "features"}));
    client.answer("subscribed");
    let packet = client.packet(2);
    assert_eq!((packet.dim, packet.floats().as_slice()), (DIM, packet.scene.features.patches()));
    client.send(&json!({"unsubscribe": "features"}));
    client.answer("unsubscribed");
    client.send(&json!({"subscribe": "features_f16"}));
    client.answer("subscribed");
    let packet = client.packet(2);
    let expected: Vec<u8> = packet
        .scene
        .features
        .patches()
        .iter()
        .flat_map(|value| f16::from_f32(*value).to_le_bytes())
        .collect();
    assert_eq!((packet.dtype, packet.dim, packet.payload), (1, DIM, expected));
}

#[test]
fn commands_for_heads_reach_the_pipeline() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    for (word, fit) in [("freeze", "frozen"), ("refit", "frozen"), ("follow", "follow")] {
        assert_eq!(fed.view.take_commands(), []);
        client.send(&json!({"pca": word}));
        assert_eq!(client.answer("pca")["asked"], word);
        assert_eq!(fed.view.take_commands(), [("pca".to_string(), json!(word))]);
        assert_eq!(client.answer("stats")["pca"], fit);
    }
    let command = json!({"x": 0.5, "y": 0.25});
    client.send(&json!({"head": {"name": "similarity", "command": command}}));
    assert_eq!(client.answer("head")["name"], "similarity");
    assert_eq!(fed.view.take_commands(), [("similarity".to_string(), command)]);
}

#[test]
fn outputs_come_by_name_whatever_head_made_them() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    client.send(&json!({"subscribe": "outputs"}));
    client.answer("subscribed");
    let name_and_values = |packet: &Packet| {
        let (length, rest) = packet.payload.split_first().unwrap();
        let (name, values) = rest.split_at(usize::from(*length));
        (String::from_utf8(name.to_vec()).unwrap(), values.to_vec())
    };
    let depth = client.packet(5);
    let values: Vec<u8> = (0..GRID.rows).flat_map(|row| (row as f32 + 0.5).to_le_bytes()).collect();
    assert_eq!((depth.dtype, depth.grid, depth.dim), (2, (GRID.rows, 1), 1));
    assert_eq!(name_and_values(&depth), ("depth".into(), values));
    let ground = client.packet(5);
    let classes: Vec<u8> = (0..GRID.len()).map(|patch| patch as u8).collect();
    assert_eq!((ground.dtype, ground.grid, ground.dim), (0, (GRID.rows, GRID.cols), 1));
    assert_eq!(name_and_values(&ground), ("ground.classes".into(), classes));
    let others = client.answer("outputs");
    assert_eq!(others["outputs"]["blur"], json!({"kind": "score", "value": 0.25}));
    let found = json!({"left": 0.0, "top": 0.0, "width": 0.5, "height": 1.0, "score": 0.75, "class": 3});
    assert_eq!(others["outputs"]["objects"], json!({"kind": "boxes", "value": [found]}));
}

#[test]
fn statistics_come_by_themselves() {
    let fed = fed();
    let stats = LiveStats { frames: 77, fps: 12.5, temperature_c: Some(40.5), ..LiveStats::default() };
    fed.view.update(&stats);
    let mut client = Client::new(&fed.view);
    for _ in 0..2 {
        let message = client.answer("stats");
        assert_eq!(message["stats"], serde_json::to_value(&stats).unwrap());
        assert_eq!((&message["clients"], &message["trouble"]), (&json!(1), &Value::Null));
    }
}

#[test]
fn wrong_messages_are_answered_and_survived() {
    let fed = fed();
    let mut client = Client::new(&fed.view);
    let texts = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "\u{0}\u{fffd}",
        r#"{"dance": true}"#,
        r#"{"pick": {"x": 0.5}}"#,
        r#"{"pick": {"x": 0.5, "y": 1.5}}"#,
        r#"{"pick": {"x": -1e308, "y": 0.5}}"#,
        r#"{"pick": {"x": 1e999, "y": 0.5}}"#,
        r#"{"pick": {"x": 0.1, "y": 0.1, "z": 0.1}}"#,
        r#"{"pick": {"x": 0.1, "y": 0.1}, "unpick": true}"#,
        r#"{"unpick": false}"#,
        r#"{"query": 1}"#,
        r#"{"query": [null]}"#,
        r#"{"query": [1e39]}"#,
        r#"{"query": []}"#,
        r#"{"subscribe": "everything"}"#,
        r#"{"pca": "Freeze"}"#,
    ];
    for text in texts {
        assert!(!client.error_of(Message::text(text)).is_empty(), "{text}");
    }
    assert!(client.error_of(Message::binary(vec![1, 2, 3])).contains("binary"));
    let deep = "[".repeat(200 << 10);
    client.error_of(Message::text(deep));
    client.send(&json!({"pick": {"x": 0.5, "y": 0.5}}));
    client.answer("picked");
    client.packet(1);
}

#[test]
fn too_much_ends_the_connection_and_nothing_else() {
    let fed = fed();
    let mut large = Client::new(&fed.view);
    large.0.send(Message::text("x".repeat(600 << 10))).unwrap();
    large.assert_closed();
    let mut many = Client::new(&fed.view);
    for _ in 0..1000 {
        // The server may hang up in the middle.
        if many.0.send(Message::text(r#"{"unpick": true}"#)).is_err() {
            break;
        }
    }
    many.assert_closed();
    let mut next = Client::new(&fed.view);
    next.send(&json!({"subscribe": "features"}));
    next.packet(2);
    until("permits are given back", || get(fed.address(), "/metrics", &[]).text().contains("clients 1\n"));
}

#[test]
fn who_may_connect() {
    let mut limited = config(Access::Token(TOKEN.into()));
    limited.max_clients = 1;
    let fed = Fed::new(limited);
    let bearer = format!("Bearer {TOKEN}");
    let status = |headers: &[(&'static str, &str)]| match Client::with_headers(&fed.view, headers) {
        Ok(_) => StatusCode::OK,
        Err(status) => status,
    };
    assert_eq!(status(&[]), StatusCode::UNAUTHORIZED);
    assert_eq!(status(&[("authorization", "Bearer nothing-right")]), StatusCode::UNAUTHORIZED);
    let elsewhere = [("authorization", bearer.as_str()), ("origin", "http://evil.example")];
    assert_eq!(status(&elsewhere), StatusCode::FORBIDDEN);
    let origin = format!("http://{}", fed.address());
    let ours = [("authorization", bearer.as_str()), ("origin", origin.as_str())];
    let mut client = Client::with_headers(&fed.view, &ours).unwrap();
    client.answer("hello");
    assert_eq!(status(&ours), StatusCode::SERVICE_UNAVAILABLE);
    drop(client);
    until("the permit is free again", || status(&ours) == StatusCode::OK);
}
