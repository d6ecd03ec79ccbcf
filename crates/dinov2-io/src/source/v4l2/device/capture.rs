//! Streaming from one open device: gives its newest frame, or the reason why it has to be reopened.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::abi;
use super::convert::{Converter, Layout};
use super::facts::{CameraConfig, CameraFormat, CameraPixels, FORMATS};
use super::ffi::{monotonic_now, wait, zeroed};
use super::format::{set_format, set_rate};
use super::negotiate::{Request, choose};
use super::node::{Identity, Node, USUAL_FPS, USUAL_SIZE_PX, describe_error};
use super::queue::{Filled, Queue};
use crate::{Frame, Losses};

/// A camera has stalled if it gives no frame for this time and this number of frame times.
const STALL: Duration = Duration::from_secs(2);
const STALL_FRAMES: f64 = 10.0;
/// A frame that waited longer than this number of frame times in a full queue is stale.
const STALE_FRAMES: f64 = 2.0;

/// How strictly controls are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controls {
    /// A control that cannot be set is an error.
    Must,
    /// Controls that cannot be set are skipped.
    May,
}

/// A streaming camera.
#[derive(Debug)]
pub(super) struct Capture {
    queue: Queue,
    layout: Layout,
    frame_time: Duration,
    sequence: Option<u32>,
    pub(super) identity: Identity,
    /// `vivid: 640x480 YUYV 30 fps`.
    pub(super) description: String,
}

/// Count of frames that could not be decoded while waiting for a valid one.
#[derive(Debug, Default)]
struct Broken {
    count: u64,
    first: String,
}

impl Broken {
    fn add(&mut self, count: u64, reason: String) {
        if self.count == 0 {
            self.first = reason;
        }
        self.count += count;
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => Ok(()),
            count => write!(f, ": {count} could not be decoded, the first because: {}", self.first),
        }
    }
}

/// What [`Capture::next`] found.
pub(super) enum Next {
    /// A frame with its capture time.
    Frame {
        captured: Instant,
    },
    Stopped,
}

impl Capture {
    /// Configures a device and starts its stream. The error contains the problem and advice.
    pub(super) fn start(
        node: Node,
        path: &Path,
        config: &CameraConfig,
        controls: Controls,
    ) -> Result<Self, String> {
        let request = Request {
            size: config.size.unwrap_or(USUAL_SIZE_PX),
            fps: config.fps.unwrap_or(USUAL_FPS),
            format: config.format,
        };
        let offers = node.formats(request.size);
        let mode = choose(&offers, request).ok_or_else(|| no_format(&offers, config.format))?;
        let wrong = |error: io::Error| describe_error(&error, path);
        let layout = set_format(&node, mode).map_err(wrong)??;
        let rate = set_rate(&node, mode.fps.unwrap_or(request.fps)).or(mode.fps);
        for (name, value) in &config.controls {
            let set = node.set_control(name, *value);
            if controls == Controls::Must {
                set?;
            }
        }
        subscribe(&node);
        let Node { device, kind, identity, .. } = node;
        let queue = Queue::start(device, kind).map_err(wrong)?;
        let described = rate.map(|fps| format!(" {} fps", (fps * 100.0).round() / 100.0)).unwrap_or_default();
        let Layout { format, width_px, height_px, .. } = layout;
        Ok(Self {
            queue,
            frame_time: Duration::from_secs_f64(1.0 / rate.unwrap_or(USUAL_FPS).clamp(0.01, 10_000.0)),
            sequence: None,
            description: format!("{}: {width_px}x{height_px} {format}{described}", identity.card),
            identity,
            layout,
        })
    }

    /// Waits for a frame and converts the newest into `frame`: pixels and size. Skipped frames are counted. The error is the
    /// reason why the device has to be reopened.
    pub(super) fn next(
        &mut self,
        stop: BorrowedFd<'_>,
        converter: &mut Converter,
        frame: &mut Frame,
        losses: &mut Losses,
    ) -> Result<Next, String> {
        let most = STALL.max(self.frame_time.mul_f64(STALL_FRAMES));
        let deadline = Instant::now() + most;
        let mut may_wait_for_fresh = true;
        let mut broken = Broken::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let woken = wait(stop, Some(self.queue.device()), left).map_err(|error| error.to_string())?;
            if woken.stop {
                return Ok(Next::Stopped);
            }
            if woken.event && self.signal_changed() {
                return Err("the signal changed".into());
            }
            if woken.frame || woken.fault {
                let before = losses.corrupt;
                let (newest, all) = self.newest(losses).map_err(describe_fault)?;
                if losses.corrupt > before {
                    broken.add(losses.corrupt - before, "the driver marked it as faulty".into());
                }
                match newest {
                    None if woken.fault => return Err("the device hung up".into()),
                    None => {}
                    // The queue was full, so its frames are as old as the time between two calls.
                    Some(filled) if all && may_wait_for_fresh && self.is_stale(&filled) => {
                        may_wait_for_fresh = false;
                        losses.stale += 1;
                        self.queue.give_back(filled).map_err(describe_fault)?;
                    }
                    Some(filled) => {
                        // Before the conversion, whose time belongs to the latency.
                        let now = Instant::now();
                        let captured = age(&filled).and_then(|age| now.checked_sub(age)).unwrap_or(now);
                        let payload = self.queue.payload(&filled);
                        let converted = converter.convert(&self.layout, payload, frame);
                        self.queue.give_back(filled).map_err(describe_fault)?;
                        match converted {
                            Ok(()) => return Ok(Next::Frame { captured }),
                            Err(reason) => {
                                losses.corrupt += 1;
                                broken.add(1, reason);
                            }
                        }
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(format!("no whole frame for {:.1} s{broken}", most.as_secs_f64()));
            }
        }
    }

    /// The newest filled buffer, and whether every buffer was filled. The others go back into the queue.
    fn newest(&mut self, losses: &mut Losses) -> io::Result<(Option<Filled>, bool)> {
        let (mut newest, mut taken) = (None, 0);
        while taken < self.queue.len() {
            let Some(filled) = self.queue.take()? else { break };
            taken += 1;
            losses.missed += self.missed_before(filled.sequence);
            if filled.faulty {
                losses.corrupt += 1;
                self.queue.give_back(filled)?;
            } else if let Some(older) = newest.replace(filled) {
                losses.stale += 1;
                self.queue.give_back(older)?;
            }
        }
        Ok((newest, taken == self.queue.len()))
    }

    /// Frames that the driver counted since the last delivered one. The counter wraps; if it stands still or decreases
    /// (interlaced fields, drivers that do not count), the result is 0.
    fn missed_before(&mut self, sequence: u32) -> u64 {
        missed_between(self.sequence.replace(sequence), sequence)
    }

    fn is_stale(&self, filled: &Filled) -> bool {
        age(filled).is_none_or(|age| age > self.frame_time.mul_f64(STALE_FRAMES))
    }

    fn signal_changed(&self) -> bool {
        let next = || {
            let mut event: abi::Event = zeroed();
            self.queue.device().call(abi::DQEVENT, &mut event).ok().map(|()| event.kind)
        };
        std::iter::from_fn(next).take(64).any(|kind| kind == abi::EVENT_SOURCE_CHANGE)
    }
}

fn missed_between(last: Option<u32>, sequence: u32) -> u64 {
    let gap = last.map_or(0, |last| sequence.wrapping_sub(last).wrapping_sub(1));
    if gap < 1 << 31 { u64::from(gap) } else { 0 }
}

/// Time since a frame was captured, if the driver reports it.
fn age(filled: &Filled) -> Option<Duration> {
    filled.captured.map(|captured| monotonic_now().saturating_sub(captured))
}

fn describe_fault(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENODEV) => "unplugged".into(),
        Some(libc::EIO) => "the driver gave up (input/output error)".into(),
        _ => format!("the driver gave up ({error})"),
    }
}

fn no_format(offers: &[CameraPixels], wished: Option<CameraFormat>) -> String {
    let ours = || offers.iter().filter_map(|offer| offer.format).map(|format| format.to_string());
    let list = |names: Vec<String>| if names.is_empty() { "none".into() } else { names.join(", ") };
    match wished {
        Some(format) if ours().next().is_some() => {
            format!("format: expected one of {}, got {format}", list(ours().collect()))
        }
        _ => {
            let mut known: Vec<_> = FORMATS.iter().map(|(_, name, _)| name.to_string()).collect();
            known.dedup();
            let got = offers.iter().map(|offer| offer.code.clone()).collect();
            format!("format: expected one of {}, got {}", list(known), list(got))
        }
    }
}

/// Subscribes to changes of the input's signal. Not every driver has events or inputs; without them a changed signal appears
/// as a stall.
fn subscribe(node: &Node) {
    let mut input = 0;
    let _ = node.device.call(abi::G_INPUT, &mut input);
    let mut subscription: abi::EventSubscription = zeroed();
    (subscription.kind, subscription.id) = (abi::EVENT_SOURCE_CHANGE, input as u32);
    let _ = node.device.call(abi::SUBSCRIBE_EVENT, &mut subscription);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_frames_are_counted_across_the_wrap() {
        assert_eq!(missed_between(None, 7), 0);
        assert_eq!(missed_between(Some(7), 8), 0);
        assert_eq!(missed_between(Some(7), 11), 3);
        assert_eq!(missed_between(Some(u32::MAX - 1), 2), 3);
        assert_eq!(missed_between(Some(u32::MAX), 0), 0);
        assert_eq!(missed_between(Some(7), 7), 0);
        assert_eq!(missed_between(Some(7), 0), 0);
    }

    #[test]
    fn a_stall_tells_why_frames_were_not_taken() {
        let mut broken = Broken::default();
        assert_eq!(broken.to_string(), "");
        broken.add(1, "JPEG without its end".into());
        broken.add(1, "another".into());
        assert_eq!(broken.to_string(), ": 2 could not be decoded, the first because: JPEG without its end");
    }

    #[test]
    fn a_format_that_is_not_there_is_told_what_is() {
        let offer = |code: &str, format| CameraPixels {
            code: code.into(),
            description: String::new(),
            format,
            sizes: Vec::new(),
        };
        let offers = [offer("YUYV", Some(CameraFormat::Yuyv)), offer("H264", None)];
        assert_eq!(no_format(&offers, Some(CameraFormat::Nv12)), "format: expected one of YUYV, got NV12");
        assert_eq!(
            no_format(&offers[1..], None),
            "format: expected one of YUYV, UYVY, NV12, RGB24, BGR24, MJPEG, JPEG, GREY, got H264"
        );
    }
}
