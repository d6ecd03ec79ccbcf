//! A live source without a device: the test pattern in real time.

use std::time::{Duration, Instant};

use super::pattern::Pattern;
use super::{LiveHandle, Source};
use crate::{Frame, SourceError};

const DEFAULT_FPS: f64 = 30.0;
/// Highest frame rate.
const MAX_FPS: f64 = 1_000.0;

/// A simulated camera: the test pattern in real time. Frames that are not taken in time are lost, as with a camera.
#[derive(Debug)]
pub struct TestCamera {
    pattern: Pattern,
    period: Duration,
    start: Option<Instant>,
    /// Number of frames so far, given or lost.
    ticks: u64,
    given: usize,
    handle: LiveHandle,
}

impl TestCamera {
    /// Parses `test:[WIDTHxHEIGHT][@FPS]`. Default: 640x480 at 30 frames per second.
    ///
    /// # Errors
    /// If the text has another form, the size exceeds the limits, or the rate is not above 0 and at most 1000.
    pub fn parse(words: &str) -> Result<Self, SourceError> {
        let wrong = || SourceError::Input {
            expected: "test camera test:, test:WIDTHxHEIGHT or test:WIDTHxHEIGHT@FPS (at most 1000)".into(),
            got: format!("{words:?}"),
        };
        let shape = words.strip_prefix("test:").ok_or_else(wrong)?;
        let (size, fps) = match shape.split_once('@') {
            Some((size, fps)) => (size, fps.parse().map_err(|_| wrong())?),
            None => (shape, DEFAULT_FPS),
        };
        if !(fps > 0.0 && fps <= MAX_FPS) {
            return Err(wrong());
        }
        let pattern = Pattern::parse(&format!("{size}@0")).map_err(|_| wrong())?;
        let period = Duration::from_secs_f64(1.0 / fps);
        Ok(Self { pattern, period, start: None, ticks: 0, given: 0, handle: LiveHandle::default() })
    }

    /// Capture time of frame `tick`.
    fn moment(&self, start: Instant, tick: u64) -> Instant {
        start + Duration::from_secs_f64(self.period.as_secs_f64() * tick as f64)
    }
}

impl Source for TestCamera {
    fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        let start = *self.start.get_or_insert_with(Instant::now);
        let passed = (start.elapsed().as_secs_f64() / self.period.as_secs_f64()) as u64;
        let tick = self.ticks.max(passed);
        self.handle.count(|losses| losses.stale += tick - self.ticks);
        self.ticks = tick + 1;
        let captured = self.moment(start, tick);
        if !self.handle.stop_signal().sleep_until(captured) {
            return Ok(false);
        }
        self.pattern.seek(tick as usize);
        self.pattern.read_into(frame);
        frame.mark_live("test", self.given, captured);
        self.given += 1;
        Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_time_and_late_ones_are_lost() {
        let mut camera = TestCamera::parse("test:28x28@50").unwrap();
        let handle = camera.live().unwrap();
        let mut frame = Frame::new();
        let mut moments = Vec::new();
        for _ in 0..3 {
            assert!(camera.next_frame(&mut frame).unwrap());
            moments.push(frame.captured.unwrap());
            assert!(frame.captured.unwrap() <= Instant::now(), "a frame of the future");
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(camera.next_frame(&mut frame).unwrap());
        let lost = handle.losses().stale;
        assert!(lost >= 3, "{lost}");
        let since = frame.captured.unwrap() - moments[0];
        assert_eq!((since.as_secs_f64() * 50.0).round() as u64, 3 + lost);
        handle.stop_signal().stop();
        assert!(!camera.next_frame(&mut frame).unwrap());
    }

    #[test]
    fn a_waiting_camera_can_be_stopped() {
        let mut camera = TestCamera::parse("test:28x28@0.001").unwrap();
        let handle = camera.live().unwrap();
        let mut frame = Frame::new();
        assert!(camera.next_frame(&mut frame).unwrap());
        let waiting = std::thread::spawn(move || camera.next_frame(&mut frame).unwrap());
        handle.stop_signal().stop();
        assert!(!waiting.join().unwrap());
    }

    #[test]
    fn words_that_are_no_test_camera() {
        for words in
            ["test", "test:x", "test:28x28@", "test:28x28@0", "test:28x28@-1", "test:@nan", "test:@1001"]
        {
            assert!(TestCamera::parse(words).is_err(), "{words}");
        }
        assert!(TestCamera::parse("test:@2.5").is_ok());
    }
}
