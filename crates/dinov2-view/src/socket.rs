//! `/ws`: sends pictures, similarity maps, features, outputs and statistics to one client and handles its messages.
//! The formats are in `protocol.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use dinov2_heads::similarity_map;
use serde::Deserialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::connections::{Purpose, Slot};
use crate::feed::ViewFrame;
use crate::limits::{MAX_MESSAGE_BYTES, MAX_MESSAGES_PER_S};
use crate::picture::Picture;
use crate::protocol::{self, ClientMessage, HeadCommand, Point, ServerMessage, Topic, VERSION};
use crate::refusal::Refusal;
use crate::shared::{Shared, lock};
use crate::stream::Viewer;

/// Time between two `stats` messages.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// `?camera=1`
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    camera: usize,
}

/// The connection ends: the client closed it, or exceeded a limit.
struct Disconnected;

impl From<axum::Error> for Disconnected {
    fn from(_: axum::Error) -> Self {
        Self
    }
}

pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(slot): Extension<Slot>,
    Query(choice): Query<Choice>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    // The HTTP request ends with the upgrade; this one lasts as long as the socket.
    let request = slot.begin_request(Purpose::Ordinary).ok_or(Refusal::Busy)?;
    let viewer = Viewer::new(shared, choice.camera)?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(|socket| async {
        Client::new(socket, viewer).serve().await;
        drop(request);
    }))
}

/// The feature that patches are compared with.
enum Reference {
    /// The patch at this point of the next frame.
    Point(Point),
    /// A feature that the client sent; its length is checked against `dim` of the next frame.
    Given(Vec<f32>),
    /// A feature `[dim]` that was checked.
    Fixed(Vec<f32>),
}

struct Client {
    socket: WebSocket,
    viewer: Viewer,
    topics: Vec<Topic>,
    reference: Option<Reference>,
    similarities: Vec<f32>,
    /// rows, cols, dim, width and height of the last `grid` message.
    sent_grid: Option<[usize; 5]>,
    messages_this_second: u32,
}

impl Client {
    fn new(socket: WebSocket, viewer: Viewer) -> Self {
        let (topics, similarities) = (Vec::new(), Vec::new());
        Self {
            socket,
            viewer,
            topics,
            reference: None,
            similarities,
            sent_grid: None,
            messages_this_second: 0,
        }
    }

    /// Runs until the connection ends.
    async fn serve(mut self) {
        let mut ticks = interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.hello().await.is_ok() {
            while self.step(&mut ticks).await.is_ok() {}
        }
    }

    async fn step(&mut self, ticks: &mut Interval) -> Result<(), Disconnected> {
        tokio::select! {
            message = self.socket.recv() => match message {
                Some(Ok(message)) => self.receive(message).await,
                Some(Err(_)) | None => Err(Disconnected),
            },
            _ = ticks.tick() => {
                self.messages_this_second = 0;
                self.stats().await
            }
            frame = self.viewer.next() => match frame {
                Some(frame) => self.show(&frame).await,
                None => Err(Disconnected),
            },
        }
    }

    async fn hello(&mut self) -> Result<(), Disconnected> {
        let (config, camera) = (&self.viewer.shared.config, self.viewer.camera);
        let pca = self.viewer.shared.pca_fit();
        let (title, model, cameras) = (&*config.title, &*config.model, &*config.cameras);
        let hello = ServerMessage::Hello { version: VERSION, title, model, cameras, camera, pca }.to_text();
        self.send_text(hello).await
    }

    async fn stats(&mut self) -> Result<(), Disconnected> {
        let shared = &self.viewer.shared;
        let text = {
            let health = lock(&shared.health);
            let (clients, pca, trouble) = (shared.clients(), shared.pca_fit(), health.trouble());
            let none = Default::default();
            let stats = health.stats().unwrap_or(&none);
            ServerMessage::Stats { stats, clients, pca, trouble }.to_text()
        };
        self.send_text(text).await
    }

    async fn receive(&mut self, message: Message) -> Result<(), Disconnected> {
        self.messages_this_second += 1;
        if self.messages_this_second > MAX_MESSAGES_PER_S {
            self.error(format!("messages: expected at most {MAX_MESSAGES_PER_S} a second")).await?;
            return Err(Disconnected);
        }
        match message {
            Message::Text(text) => match protocol::parse_client_message(&text) {
                Ok(message) => self.handle(message).await,
                Err(problem) => self.error(problem).await,
            },
            Message::Binary(_) => self.error("message: expected text, got binary".into()).await,
            Message::Close(_) => Err(Disconnected),
            // The web-socket library answers them.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn handle(&mut self, message: ClientMessage) -> Result<(), Disconnected> {
        match message {
            ClientMessage::Pick(at) => self.compare_with(Reference::Point(at)).await,
            ClientMessage::Query(feature) => self.compare_with(Reference::Given(feature)).await,
            ClientMessage::Unpick(_) => {
                self.reference = None;
                self.watch();
                self.send_text(ServerMessage::Unpicked.to_text()).await
            }
            ClientMessage::Subscribe(topic) => {
                if !self.topics.contains(&topic) {
                    self.topics.push(topic);
                }
                self.watch();
                self.send_text(ServerMessage::Subscribed { topic }.to_text()).await
            }
            ClientMessage::Unsubscribe(topic) => {
                self.topics.retain(|kept| *kept != topic);
                self.watch();
                self.send_text(ServerMessage::Unsubscribed { topic }.to_text()).await
            }
            ClientMessage::Head(HeadCommand { name, command }) => {
                self.viewer.shared.command(name.clone(), command);
                self.send_text(ServerMessage::Head { name }.to_text()).await
            }
            ClientMessage::Pca(asked) => {
                self.viewer.shared.command_pca(asked);
                self.send_text(ServerMessage::Pca { asked }.to_text()).await
            }
        }
    }

    async fn compare_with(&mut self, reference: Reference) -> Result<(), Disconnected> {
        self.reference = Some(reference);
        self.watch();
        match self.viewer.fresh() {
            Some(frame) => self.show(&frame).await,
            // The next frame is compared when it arrives.
            None => Ok(()),
        }
    }

    /// Watches the camera while anything of its frames is sent.
    fn watch(&mut self) {
        let wanted = self.reference.is_some() || !self.topics.is_empty();
        self.viewer.watch(wanted);
    }

    /// Sends what the client subscribed to. The picture comes last, so a client that gets it has everything of the frame.
    async fn show(&mut self, frame: &ViewFrame) -> Result<(), Disconnected> {
        if self.reference.is_none() && self.topics.is_empty() {
            return Ok(());
        }
        self.grid(frame).await?;
        self.similarity(frame).await?;
        let camera = self.viewer.camera;
        if self.topics.contains(&Topic::Features) {
            self.send(Message::Binary(protocol::features_f32(camera, frame))).await?;
        }
        if self.topics.contains(&Topic::FeaturesF16) {
            self.send(Message::Binary(protocol::features_f16(camera, frame))).await?;
        }
        if self.topics.contains(&Topic::Outputs) {
            self.outputs(frame).await?;
        }
        if self.topics.contains(&Topic::Pictures) {
            self.send(Message::Binary(protocol::colours(camera, frame))).await?;
            let jpeg = self.viewer.jpeg(frame, Picture::Camera);
            self.send(Message::Binary(protocol::picture(camera, frame, &jpeg))).await?;
        }
        Ok(())
    }

    async fn grid(&mut self, frame: &ViewFrame) -> Result<(), Disconnected> {
        let shape = [frame.grid.rows, frame.grid.cols, frame.dim, frame.width_px, frame.height_px];
        if self.sent_grid == Some(shape) {
            return Ok(());
        }
        self.sent_grid = Some(shape);
        let [rows, cols, dim, width_px, height_px] = shape;
        let grid = ServerMessage::Grid { camera: self.viewer.camera, rows, cols, dim, width_px, height_px };
        self.send_text(grid.to_text()).await
    }

    async fn similarity(&mut self, frame: &ViewFrame) -> Result<(), Disconnected> {
        let Some(reference) = self.reference.take() else { return Ok(()) };
        let (camera, index) = (self.viewer.camera, frame.index);
        let (feature, reply) = match reference {
            Reference::Point(at) => {
                let Some((feature, row, col)) = frame.patch_at(at.x, at.y) else { return Ok(()) };
                let picked = ServerMessage::Picked { camera, frame: index, row, col, feature };
                (feature.to_vec(), Some(picked.to_text()))
            }
            Reference::Given(feature) => {
                (feature, Some(ServerMessage::Queried { camera, frame: index }.to_text()))
            }
            Reference::Fixed(feature) => (feature, None),
        };
        if feature.len() != frame.dim {
            self.watch();
            return self.error(format!("query: expected {} numbers, got {}", frame.dim, feature.len())).await;
        }
        if let Err(error) = similarity_map(&frame.patches, &feature, &mut self.similarities) {
            self.watch();
            return self.error(error.to_string()).await;
        }
        self.reference = Some(Reference::Fixed(feature));
        if let Some(reply) = reply {
            self.send_text(reply).await?;
        }
        self.send(Message::Binary(protocol::similarity(camera, frame, &self.similarities))).await
    }

    async fn outputs(&mut self, frame: &ViewFrame) -> Result<(), Disconnected> {
        let camera = self.viewer.camera;
        let grids =
            frame.outputs.iter().filter_map(|(name, output)| protocol::output(camera, frame, name, output));
        for grid in grids {
            self.send(Message::Binary(grid)).await?;
        }
        let others = frame.outputs.iter();
        let outputs: serde_json::Map<_, _> = others
            .filter_map(|(name, output)| Some((name.clone(), protocol::output_json(frame, output)?)))
            .collect();
        if outputs.is_empty() {
            return Ok(());
        }
        self.send_text(ServerMessage::Outputs { camera, frame: frame.index, outputs }.to_text()).await
    }

    async fn error(&mut self, message: String) -> Result<(), Disconnected> {
        self.send_text(ServerMessage::Error { message }.to_text()).await
    }

    async fn send_text(&mut self, text: String) -> Result<(), Disconnected> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Disconnected> {
        Ok(self.socket.send(message).await?)
    }
}
