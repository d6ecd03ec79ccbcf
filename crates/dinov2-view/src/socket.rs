//! `/ws`: pictures, similarity maps, features and statistics for one client, and what it wishes.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use dinov2_heads::similarity_map;
use serde::Deserialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::feed::Shot;
use crate::limits::{MAX_MESSAGE_BYTES, MAX_MESSAGES_PER_S};
use crate::picture::Picture;
use crate::places::{Place, Purpose};
use crate::protocol::{self, Answer, HeadCommand, Point, Topic, VERSION, Wish};
use crate::refusal::Refusal;
use crate::shared::{Shared, lock};
use crate::stream::Viewer;

/// Statistics come this often.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// `?camera=1`
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    camera: usize,
}

/// The client cannot be served any longer: it went away, or does not keep the rules.
struct Gone;

impl From<axum::Error> for Gone {
    fn from(_: axum::Error) -> Self {
        Self
    }
}

pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    Query(choice): Query<Choice>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    // The answer ends with the upgrade; the socket goes on.
    let answering = place.answer(Purpose::Ordinary).ok_or(Refusal::Busy)?;
    let viewer = Viewer::new(shared, choice.camera)?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(|socket| async {
        Client::new(socket, viewer).serve().await;
        drop(answering);
    }))
}

/// What patches are compared with.
enum Reference {
    /// The patch at this point of the next frame.
    Point(Point),
    /// A feature `[dim]` that the client sent; the next frame shows whether it fits.
    Given(Vec<f32>),
    /// The feature `[dim]` of all frames from now on.
    Fixed(Vec<f32>),
}

struct Client {
    socket: WebSocket,
    viewer: Viewer,
    topics: Vec<Topic>,
    reference: Option<Reference>,
    similarities: Vec<f32>,
    /// rows, cols, dim, width and height that it was told last.
    told: Option<[usize; 5]>,
    messages_this_second: u32,
}

impl Client {
    fn new(socket: WebSocket, viewer: Viewer) -> Self {
        let (topics, similarities) = (Vec::new(), Vec::new());
        Self { socket, viewer, topics, reference: None, similarities, told: None, messages_this_second: 0 }
    }

    /// Runs until the client goes away.
    async fn serve(mut self) {
        let mut ticks = interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.hello().await.is_ok() {
            while self.step(&mut ticks).await.is_ok() {}
        }
    }

    async fn step(&mut self, ticks: &mut Interval) -> Result<(), Gone> {
        tokio::select! {
            message = self.socket.recv() => match message {
                Some(Ok(message)) => self.receive(message).await,
                Some(Err(_)) | None => Err(Gone),
            },
            _ = ticks.tick() => {
                self.messages_this_second = 0;
                self.stats().await
            }
            shot = self.viewer.next() => match shot {
                Some(shot) => self.show(&shot).await,
                None => Err(Gone),
            },
        }
    }

    async fn hello(&mut self) -> Result<(), Gone> {
        let (config, camera) = (&self.viewer.shared.config, self.viewer.camera);
        let pca = self.viewer.shared.pca_fit();
        let (title, model, cameras) = (&*config.title, &*config.model, &*config.cameras);
        let hello = Answer::Hello { version: VERSION, title, model, cameras, camera, pca }.to_text();
        self.tell(hello).await
    }

    async fn stats(&mut self) -> Result<(), Gone> {
        let shared = &self.viewer.shared;
        let text = {
            let pulse = lock(&shared.pulse);
            let (clients, pca, trouble) = (shared.clients(), shared.pca_fit(), pulse.trouble());
            let none = Default::default();
            let stats = pulse.stats().unwrap_or(&none);
            Answer::Stats { stats, clients, pca, trouble }.to_text()
        };
        self.tell(text).await
    }

    async fn receive(&mut self, message: Message) -> Result<(), Gone> {
        self.messages_this_second += 1;
        if self.messages_this_second > MAX_MESSAGES_PER_S {
            self.error(format!("messages: expected at most {MAX_MESSAGES_PER_S} a second")).await?;
            return Err(Gone);
        }
        match message {
            Message::Text(text) => match protocol::parse_wish(&text) {
                Ok(wish) => self.grant(wish).await,
                Err(wrong) => self.error(wrong).await,
            },
            Message::Binary(_) => self.error("message: expected text, got binary".into()).await,
            Message::Close(_) => Err(Gone),
            // The library answers them.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn grant(&mut self, wish: Wish) -> Result<(), Gone> {
        match wish {
            Wish::Pick(at) => self.compare_with(Reference::Point(at)).await,
            Wish::Query(feature) => self.compare_with(Reference::Given(feature)).await,
            Wish::Unpick(_) => {
                self.reference = None;
                self.watch();
                self.tell(Answer::Unpicked.to_text()).await
            }
            Wish::Subscribe(topic) => {
                if !self.topics.contains(&topic) {
                    self.topics.push(topic);
                }
                self.watch();
                self.tell(Answer::Subscribed { topic }.to_text()).await
            }
            Wish::Unsubscribe(topic) => {
                self.topics.retain(|kept| *kept != topic);
                self.watch();
                self.tell(Answer::Unsubscribed { topic }.to_text()).await
            }
            Wish::Head(HeadCommand { name, command }) => {
                self.viewer.shared.command(name.clone(), command);
                self.tell(Answer::Head { name }.to_text()).await
            }
            Wish::Pca(asked) => {
                self.viewer.shared.command_pca(asked);
                self.tell(Answer::Pca { asked }.to_text()).await
            }
        }
    }

    async fn compare_with(&mut self, reference: Reference) -> Result<(), Gone> {
        self.reference = Some(reference);
        self.watch();
        match self.viewer.fresh() {
            Some(shot) => self.show(&shot).await,
            // The next frame will do it.
            None => Ok(()),
        }
    }

    /// Frames are wanted while they would be sent.
    fn watch(&mut self) {
        let wanted = self.reference.is_some() || !self.topics.is_empty();
        self.viewer.watch(wanted);
    }

    /// Sends what the client wants of a frame, the picture last: with it, everything of the frame is there.
    async fn show(&mut self, shot: &Shot) -> Result<(), Gone> {
        if self.reference.is_none() && self.topics.is_empty() {
            return Ok(());
        }
        self.grid(shot).await?;
        self.similarity(shot).await?;
        let camera = self.viewer.camera;
        if self.topics.contains(&Topic::Features) {
            self.send(Message::Binary(protocol::features_f32(camera, shot))).await?;
        }
        if self.topics.contains(&Topic::FeaturesF16) {
            self.send(Message::Binary(protocol::features_f16(camera, shot))).await?;
        }
        if self.topics.contains(&Topic::Outputs) {
            self.outputs(shot).await?;
        }
        if self.topics.contains(&Topic::Pictures) {
            self.send(Message::Binary(protocol::colours(camera, shot))).await?;
            let jpeg = self.viewer.jpeg(shot, Picture::Camera);
            self.send(Message::Binary(protocol::picture(camera, shot, &jpeg))).await?;
        }
        Ok(())
    }

    async fn grid(&mut self, shot: &Shot) -> Result<(), Gone> {
        let shape = [shot.grid.rows, shot.grid.cols, shot.dim, shot.width_px, shot.height_px];
        if self.told == Some(shape) {
            return Ok(());
        }
        self.told = Some(shape);
        let [rows, cols, dim, width_px, height_px] = shape;
        let grid = Answer::Grid { camera: self.viewer.camera, rows, cols, dim, width_px, height_px };
        self.tell(grid.to_text()).await
    }

    async fn similarity(&mut self, shot: &Shot) -> Result<(), Gone> {
        let Some(reference) = self.reference.take() else { return Ok(()) };
        let (camera, frame) = (self.viewer.camera, shot.index);
        let (feature, news) = match reference {
            Reference::Point(at) => {
                let Some((feature, row, col)) = shot.patch_at(at.x, at.y) else { return Ok(()) };
                (feature.to_vec(), Some(Answer::Picked { camera, frame, row, col, feature }.to_text()))
            }
            Reference::Given(feature) => (feature, Some(Answer::Queried { camera, frame }.to_text())),
            Reference::Fixed(feature) => (feature, None),
        };
        if feature.len() != shot.dim {
            self.watch();
            return self.error(format!("query: expected {} numbers, got {}", shot.dim, feature.len())).await;
        }
        if let Err(error) = similarity_map(&shot.patches, &feature, &mut self.similarities) {
            self.watch();
            return self.error(error.to_string()).await;
        }
        self.reference = Some(Reference::Fixed(feature));
        if let Some(news) = news {
            self.tell(news).await?;
        }
        self.send(Message::Binary(protocol::similarity(camera, shot, &self.similarities))).await
    }

    async fn outputs(&mut self, shot: &Shot) -> Result<(), Gone> {
        let camera = self.viewer.camera;
        let grids =
            shot.outputs.iter().filter_map(|(name, output)| protocol::output(camera, shot, name, output));
        for grid in grids {
            self.send(Message::Binary(grid)).await?;
        }
        let others = shot.outputs.iter();
        let outputs: serde_json::Map<_, _> = others
            .filter_map(|(name, output)| Some((name.clone(), protocol::output_json(shot, output)?)))
            .collect();
        if outputs.is_empty() {
            return Ok(());
        }
        self.tell(Answer::Outputs { camera, frame: shot.index, outputs }.to_text()).await
    }

    async fn error(&mut self, message: String) -> Result<(), Gone> {
        self.tell(Answer::Error { message }.to_text()).await
    }

    async fn tell(&mut self, text: String) -> Result<(), Gone> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        Ok(self.socket.send(message).await?)
    }
}
