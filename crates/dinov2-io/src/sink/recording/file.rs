//! The MCAP file, and the thread that hands it to the system in time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dinov2_files::folder_of;
use mcap::records::{MessageHeader, Metadata};
use mcap::write::NoSeek;
use mcap::{McapError, WriteOptions, Writer};

use super::SinkError;
use crate::recording::{MESSAGE_ENCODING, MessageType, SCHEMA_ENCODING};

/// Longest time that a message waits in this process.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// A chunk is closed with the message that makes it this large. A reader holds a chunk in memory.
const CHUNK_BYTES: usize = 4 << 20;

type McapWriter = Writer<NoSeek<BufWriter<File>>>;

/// An MCAP file being written.
pub(super) struct RecordingFile {
    shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
    path: String,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    /// None once finished or failed.
    writer: Option<McapWriter>,
    /// The same file, for its length.
    file: File,
    /// Bytes of complete records that were written.
    whole_bytes: u64,
    /// When the first message was written that the system does not have yet.
    waiting_since: Option<Instant>,
    /// What went wrong behind the caller's back.
    failure: Option<io::Error>,
    /// Bytes of the messages in the open chunk.
    chunk_bytes: usize,
    stop: bool,
}

impl fmt::Debug for RecordingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RecordingFile {
    /// Creates the file with its header and `metadata`, and starts the thread.
    pub(super) fn create(path: &Path, metadata: &Metadata) -> Result<Self, SinkError> {
        let name = path.display().to_string();
        let refused = |path: String| move |source| SinkError::Write { source, path };
        let folder = folder_of(path);
        if !folder.is_dir() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no such folder");
            return Err(SinkError::Write { source, path: folder.display().to_string() });
        }
        let file = File::create_new(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SinkError::Exists { path: name.clone() },
            _ => SinkError::Write { source, path: name.clone() },
        })?;
        // A chunk is collected in memory and written at once, never patched later: what is in the file is whole but for
        // its end.
        let options = WriteOptions::new()
            .profile("ros2")
            .library(concat!("dinov2-edge/", env!("CARGO_PKG_VERSION")))
            .compression(None)
            .chunk_size(None)
            .disable_seeking(true);
        let start = || -> Result<State, McapError> {
            let mut writer = options.create(NoSeek::new(BufWriter::new(file.try_clone()?)))?;
            writer.write_metadata(metadata)?;
            let mut state = State {
                writer: Some(writer),
                file,
                whole_bytes: 0,
                chunk_bytes: 0,
                waiting_since: None,
                failure: None,
                stop: false,
            };
            state.flush()?;
            Ok(state)
        };
        let state = start().map_err(|error| refused(name.clone())(io_error(error)))?;
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let flusher = std::thread::Builder::new().name("recording".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.flush_in_time()
        });
        let flusher = Some(flusher.map_err(refused(name.clone()))?);
        Ok(Self { shared, flusher, path: name })
    }

    /// Announces a topic.
    pub(super) fn add_channel(&mut self, topic: &str, kind: &MessageType) -> Result<u16, SinkError> {
        self.act(|state| {
            let writer = state.writer()?;
            let schema = writer.add_schema(kind.name, SCHEMA_ENCODING, kind.definition.as_bytes())?;
            writer.add_channel(schema, topic, MESSAGE_ENCODING, &BTreeMap::new())
        })
    }

    /// Writes one message.
    pub(super) fn write(
        &mut self,
        channel_id: u16,
        sequence: u32,
        log_time: u64,
        message: &[u8],
    ) -> Result<(), SinkError> {
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        let first_waiting = self.act(|state| {
            state.writer()?.write_to_known_channel(&header, message)?;
            state.chunk_bytes += message.len();
            if state.chunk_bytes >= CHUNK_BYTES {
                state.flush()?;
                return Ok(false);
            }
            let first = state.waiting_since.is_none();
            state.waiting_since.get_or_insert_with(Instant::now);
            Ok(first)
        })?;
        if first_waiting {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Hands everything to the system now.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        self.act(State::flush)
    }

    /// Ends the thread and writes the summary.
    pub(super) fn finish(mut self) -> Result<(), SinkError> {
        self.stop_flusher();
        self.act(|state| {
            state.flush()?;
            state.writer()?.finish()?;
            let writer = state.writer.take().expect("a writer that was used just now");
            let file = writer.into_inner().into_inner();
            file.into_inner().map_err(|error| error.into_error())?;
            Ok(())
        })
    }

    /// Does something with the file; an error ends the recording.
    fn act<T>(&self, act: impl FnOnce(&mut State) -> Result<T, McapError>) -> Result<T, SinkError> {
        let mut state = self.shared.lock();
        if let Some(source) = state.failure.take() {
            return Err(self.refused(source));
        }
        if state.writer.is_none() {
            return Err(self.refused(io::Error::other("the recording ended with an earlier error")));
        }
        let done = act(&mut state);
        done.map_err(|error| self.refused(state.fail(error)))
    }

    fn refused(&self, source: io::Error) -> SinkError {
        SinkError::Write { source, path: self.path.clone() }
    }

    fn stop_flusher(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(flusher) = self.flusher.take() {
            let _ = flusher.join();
        }
    }
}

impl Drop for RecordingFile {
    fn drop(&mut self) {
        self.stop_flusher();
    }
}

impl Shared {
    /// A panic elsewhere leaves nothing half done that matters here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: waits for the first message that the system does not have, then until its time has come.
    fn flush_in_time(&self) {
        let mut state = self.lock();
        while !state.stop {
            let Some(since) = state.waiting_since else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = FLUSH_INTERVAL.saturating_sub(since.elapsed());
            if !left.is_zero() {
                (state, _) = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            } else if let Err(error) = state.flush() {
                state.failure = Some(state.fail(error));
            }
        }
    }
}

impl State {
    fn writer(&mut self) -> Result<&mut McapWriter, McapError> {
        self.writer.as_mut().ok_or(McapError::AttemptedWriteAfterFailure)
    }

    /// Closes the chunk and hands everything to the system.
    fn flush(&mut self) -> Result<(), McapError> {
        self.writer()?.flush()?;
        self.whole_bytes = self.file.stream_position()?;
        (self.waiting_since, self.chunk_bytes) = (None, 0);
        Ok(())
    }

    /// Ends the recording. Cuts off the record that was half written, so that the file ends with a complete record.
    fn fail(&mut self, error: McapError) -> io::Error {
        (self.writer, self.waiting_since) = (None, None);
        let _ = self.file.set_len(self.whole_bytes);
        io_error(error)
    }
}

/// What the system said, without the crate's own words around it.
fn io_error(error: McapError) -> io::Error {
    match error {
        McapError::Io(error) => error,
        other => io::Error::other(other),
    }
}
