//! A camera that reopens its device after failures.

use std::io::PipeReader;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::capture::{Capture, Controls, Next};
use super::convert::Converter;
use super::facts::CameraConfig;
use super::ffi::wait;
use super::node::{Identity, Node, NodeFault, describe_error, nodes, others};
use crate::{Frame, LiveHandle, Losses, Source, SourceError, StopSignal};

/// Time before the first attempt to open a device anew; doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Attempts in which controls must be set too. Cameras refuse them for a while after they were plugged in.
const ATTEMPTS_WITH_CONTROLS: u32 = 5;

/// A Video4Linux camera: gives the newest frame, converted to RGB, and reopens the device after failures.
///
/// If the device is unplugged, stalls, reports errors or changes its format, it is reopened until it is back, also at another
/// node if its driver reports a name and a bus address to recognise it by. [`Source::next_frame`] waits in the meantime.
#[derive(Debug)]
pub struct Camera {
    config: CameraConfig,
    /// Current device node.
    path: PathBuf,
    identity: Identity,
    /// For the names of frames: `video0`.
    stem: String,
    description: String,
    capture: Option<Capture>,
    outage: Option<Outage>,
    converter: Converter,
    losses: Losses,
    index: usize,
    stop_end: PipeReader,
    handle: LiveHandle,
}

/// The time from a failure of the device to its next frame.
#[derive(Debug)]
struct Outage {
    since: Instant,
    backoff: Duration,
    attempts: u32,
}

impl Camera {
    /// Opens a camera in the mode that is nearest to what `config` asks for, sets its controls and starts it.
    ///
    /// # Errors
    /// No such device, none that captures, no permission, in use, no format that is decoded here, or a control that
    /// does not exist or does not take its value. The message says what there is instead and what to do.
    pub fn open(config: CameraConfig) -> Result<Self, SourceError> {
        let path = config.device.display().to_string();
        let wrong = |what: String| SourceError::Camera { what, path: path.clone() };
        let node = open_node(&config.device).map_err(wrong)?;
        let capture = Capture::start(node, &config.device, &config, Controls::Must).map_err(wrong)?;
        let (stop, stop_end) = StopSignal::with_pipe().map_err(|error| wrong(error.to_string()))?;
        let device = config.device.canonicalize().unwrap_or_else(|_| config.device.clone());
        Ok(Self {
            identity: capture.identity.clone(),
            stem: device.file_name().map_or("camera".into(), |name| name.to_string_lossy().into_owned()),
            description: capture.description.clone(),
            capture: Some(capture),
            outage: None,
            converter: Converter::default(),
            losses: Losses::default(),
            index: 0,
            stop_end,
            handle: LiveHandle::new(stop),
            path: config.device.clone(),
            config,
        })
    }

    /// The mode: `vivid: 640x480 YUYV 30 fps`. It may change after an outage.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Closes a device that failed and notes it once per outage.
    fn close_failed(&mut self, reason: &str) {
        self.capture = None;
        if self.outage.is_none() {
            let path = self.path.display();
            self.handle.note(format!("{path}: {reason}; it is opened again until it is back"));
            self.outage = Some(Outage { since: Instant::now(), backoff: FIRST_BACKOFF, attempts: 0 });
        }
        self.publish(false);
    }

    /// Updates the handle for other threads.
    fn publish(&self, is_up: bool) {
        self.handle.count(|losses| *losses = self.losses);
        self.handle.set_up(is_up);
    }

    /// Waits, then tries once to open the device.
    fn reopen(&mut self) {
        let Some(outage) = &mut self.outage else { return };
        let until = Instant::now() + outage.backoff;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            // A failed wait is treated as one that ends early.
            if self.handle.stop_signal().is_stopped() || wait(self.stop_end.as_fd(), None, left).is_err() {
                return;
            }
        }
        outage.backoff = (2 * outage.backoff).min(LONGEST_BACKOFF);
        outage.attempts += 1;
        let controls = if outage.attempts > ATTEMPTS_WITH_CONTROLS { Controls::May } else { Controls::Must };
        let Some((path, node)) = self.find() else { return };
        if let Ok(capture) = Capture::start(node, &path, &self.config, controls) {
            self.description.clone_from(&capture.description);
            self.capture = Some(capture);
            self.path = path;
            self.losses.reopened += 1;
            self.publish(false);
        }
    }

    /// The device at its last node, or at another one.
    fn find(&self) -> Option<(PathBuf, Node)> {
        let here = Node::open(&self.config.device).ok();
        if let Some(node) = here.filter(|node| node.identity.card == self.identity.card) {
            return Some((self.config.device.clone(), node));
        }
        if self.identity.bus.is_empty() {
            return None;
        }
        nodes().into_iter().find_map(|path| {
            let node = Node::open(&path).ok()?;
            (node.identity == self.identity).then_some((path, node))
        })
    }

    fn deliver(&mut self, captured: Instant, frame: &mut Frame) {
        frame.mark_live(&self.stem, self.index, captured);
        self.index += 1;
        if let Some(outage) = self.outage.take() {
            let (path, down_s) = (self.path.display(), outage.since.elapsed().as_secs_f64());
            self.handle.note(format!("{path}: back after {down_s:.1} s: {}", self.description));
        }
        self.publish(true);
    }
}

impl Source for Camera {
    /// Waits for a frame that is newer than the last. False once it was stopped; never an error.
    fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        loop {
            if self.handle.stop_signal().is_stopped() {
                return Ok(false);
            }
            let Some(capture) = &mut self.capture else {
                self.reopen();
                continue;
            };
            match capture.next(self.stop_end.as_fd(), &mut self.converter, frame, &mut self.losses) {
                Ok(Next::Frame { captured }) => {
                    self.deliver(captured, frame);
                    return Ok(true);
                }
                Ok(Next::Stopped) => return Ok(false),
                Err(reason) => self.close_failed(&reason),
            }
        }
    }

    fn len_hint(&self) -> Option<usize> {
        None
    }

    fn is_video(&self) -> bool {
        true
    }

    fn live(&self) -> Option<LiveHandle> {
        Some(self.handle.clone())
    }

    fn take_notes(&mut self) -> Vec<String> {
        self.handle.take_notes()
    }
}

fn open_node(path: &Path) -> Result<Node, String> {
    Node::open(path).map_err(|fault| match fault {
        NodeFault::Io(error) => describe_error(&error, path),
        NodeFault::NoCapture => {
            format!("expected a camera, got a device that captures no video ({})", others())
        }
    })
}
