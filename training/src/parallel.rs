//! Data-parallel training: several processes, each with its part of every batch, whose gradients are summed before the step.
//!
//! Processes find each other by the environment variables of `torchrun`, Kubernetes' training operators and most SLURM scripts: `RANK`,
//! `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`. Process 0 listens; the others send it their numbers and receive the
//! sums. It adds in the order of ranks, so that all processes have the same bits, which are those of one process that
//! computes the parts one after the other.
//!
//! With the feature `nccl`, tensors on GPUs are summed there (`nccl.rs`); all processes then have the same bits, but not
//! those of one process. All other data goes through process 0.

#[cfg_attr(not(feature = "nccl"), path = "parallel/without_nccl.rs")]
mod nccl;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

/// Time for all processes to connect.
const JOIN_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for another process: the first one validates and writes checkpoints meanwhile.
const IO_TIMEOUT: Duration = Duration::from_secs(1800);
/// Time between attempts to reach process 0.
const RETRY: Duration = Duration::from_millis(200);
/// First bytes of a connection.
const GREETING: [u8; 8] = *b"dinov2t1";
/// Most processes.
const MAX_WORLD: usize = 1 << 12;
/// Bytes that are converted at a time.
const CHUNK: usize = 1 << 16;

/// Errors between processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// A missing or invalid environment variable.
    #[error("{variable}: expected {expected}, got {got}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is possible.
        expected: String,
        /// The value found.
        got: String,
    },
    /// Process 0 cannot listen, or cannot be reached.
    #[error("cannot {action} {address}")]
    Address {
        /// What was to be done.
        action: &'static str,
        /// Address and port.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Processes that did not connect in time.
    #[error("expected {world} processes at {address} within {} s, got {got}", JOIN_TIMEOUT.as_secs())]
    Missing {
        /// Number expected.
        world: usize,
        /// Address and port.
        address: String,
        /// Number there.
        got: usize,
    },
    /// Another program, or a process of another run, answers.
    #[error("process at {address}: expected one of this run, got {got}")]
    UnexpectedPeer {
        /// Address and port.
        address: String,
        /// The answer.
        got: String,
    },
    /// The connection to a process is lost.
    #[error("process {rank} is gone")]
    Disconnected {
        /// Its rank.
        rank: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// Processes with different parameters.
    #[error(
        "process {rank}: expected {expected} numbers, got {got}: do all processes have the same recipe and images?"
    )]
    Length {
        /// Its rank.
        rank: usize,
        /// Numbers that it should have sent.
        expected: u64,
        /// Numbers that it sends.
        got: u64,
    },
    /// NCCL fails.
    #[error("nccl: {0}: does each process have a GPU of its own?")]
    Nccl(String),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// This process's place in a run, as the launcher states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which of the processes this is, below `world`.
    pub rank: usize,
    /// Processes of the run.
    pub world: usize,
    /// Which of the processes on this machine it is: the index of its GPU.
    pub local_rank: usize,
    /// Processes on this machine, which share its memory.
    pub local_world: usize,
    /// Where process 0 listens, `HOST:PORT`.
    pub address: String,
}

impl Launch {
    /// From the environment; one process where `WORLD_SIZE` is not set or 1.
    ///
    /// # Errors
    /// Missing or invalid variables.
    pub fn from_env() -> Result<Option<Self>, ParallelError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Option<Self>, ParallelError> {
        let number = |name: &'static str, most: usize| -> Result<usize, ParallelError> {
            let got = variable(name);
            let parsed = got.as_ref().and_then(|text| text.parse().ok()).filter(|number| *number <= most);
            parsed.ok_or_else(|| ParallelError::Variable {
                variable: name,
                expected: format!("a number up to {most}"),
                got: got.map_or("nothing".into(), |text| format!("{text:?}")),
            })
        };
        if variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let world = number("WORLD_SIZE", MAX_WORLD)?;
        if world <= 1 {
            return Ok(None);
        }
        let rank = number("RANK", world - 1)?;
        let local_rank = if variable("LOCAL_RANK").is_some() { number("LOCAL_RANK", rank)? } else { 0 };
        let local_world = if variable("LOCAL_WORLD_SIZE").is_some() {
            number("LOCAL_WORLD_SIZE", world)?.max(1)
        } else {
            1
        };
        let host = variable("MASTER_ADDR").ok_or(ParallelError::Variable {
            variable: "MASTER_ADDR",
            expected: "the host of process 0".into(),
            got: "nothing".into(),
        })?;
        // torchrun itself listens on the port for PyTorch's processes, so the next port is used.
        let is_taken = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True");
        let port =
            number("MASTER_PORT", usize::from(u16::MAX) - usize::from(is_taken))? + usize::from(is_taken);
        Ok(Some(Self { rank, world, local_rank, local_world, address: format!("{host}:{port}") }))
    }
}

/// The processes of a run.
#[derive(Debug)]
pub struct Group {
    rank: usize,
    world: usize,
    /// Process 0: to all others, by rank. Others: to process 0.
    links: Vec<TcpStream>,
    /// Sums between GPUs, with NCCL.
    ring: Option<nccl::Ring>,
}

/// A number that is sent in little-endian bytes.
pub trait Number: Copy + std::ops::AddAssign {
    /// Its bytes.
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Default + Copy;
    /// To bytes.
    fn to_bytes(self) -> Self::Bytes;
    /// From bytes.
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

impl Number for f32 {
    type Bytes = [u8; 4];
    fn to_bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Number for f64 {
    type Bytes = [u8; 8];
    fn to_bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Group {
    /// One process.
    pub fn alone() -> Self {
        Self::new(0, 1, Vec::new())
    }

    fn new(rank: usize, world: usize, links: Vec<TcpStream>) -> Self {
        Self { rank, world, links, ring: None }
    }

    /// Waits until all processes are connected. `device`: that of this process's tensors.
    ///
    /// # Errors
    /// An address that cannot be used, processes that do not connect, GPUs that do not reach each other.
    pub fn join(launch: &Launch, device: &Device) -> Result<Self, ParallelError> {
        let links = if launch.rank == 0 { listen(launch)? } else { vec![connect(launch)?] };
        for link in &links {
            let set = link.set_nodelay(true).and_then(|()| link.set_read_timeout(Some(IO_TIMEOUT)));
            set.and_then(|()| link.set_write_timeout(Some(IO_TIMEOUT)))
                .map_err(|source| ParallelError::Disconnected { rank: 0, source })?;
        }
        let mut group = Self::new(launch.rank, launch.world, links);
        group.ring = nccl::Ring::join(&mut group, device)?;
        Ok(group)
    }

    /// Which of the processes this is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Sums the numbers of all processes; all receive the sums.
    ///
    /// # Errors
    /// A lost process, or one with another count of numbers.
    pub fn sum<T: Number>(&mut self, numbers: &mut [T]) -> Result<(), ParallelError> {
        if self.rank != 0 {
            let gone = |source| ParallelError::Disconnected { rank: 0, source };
            let Some(link) = self.links.first_mut() else { return Ok(()) };
            send(link, numbers).map_err(gone)?;
            return receive(link, 0, numbers, |number, got| *number = got);
        }
        for (link, rank) in self.links.iter_mut().zip(1..) {
            receive(link, rank, numbers, |number, got| *number += got)?;
        }
        for (link, rank) in self.links.iter_mut().zip(1..) {
            send(link, numbers).map_err(|source| ParallelError::Disconnected { rank, source })?;
        }
        Ok(())
    }

    /// As [`Self::sum`], for an f32 tensor; the sums are on its device.
    ///
    /// # Errors
    /// As [`Self::sum`], and those of candle.
    pub fn sum_tensor(&mut self, numbers: &Tensor) -> Result<Tensor, ParallelError> {
        if let Some(ring) = &self.ring {
            return Ok(ring.sum(numbers)?);
        }
        let mut flat = numbers.flatten_all()?.to_vec1::<f32>()?;
        self.sum(&mut flat)?;
        Ok(Tensor::from_vec(flat, numbers.shape(), numbers.device())?)
    }
}

/// Process 0: the links to all others, by rank.
fn listen(launch: &Launch) -> Result<Vec<TcpStream>, ParallelError> {
    let Launch { world, address, .. } = launch;
    let failed = |source| ParallelError::Address { action: "listen on", address: address.clone(), source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let begun = Instant::now();
    let mut links: Vec<Option<TcpStream>> = (1..*world).map(|_| None).collect();
    while links.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((mut link, _)) => {
                // A connection that is no process of this run is dropped.
                if let Ok(rank) = read_greeting(&mut link, *world)
                    && let Some(place @ None) = links.get_mut(rank.wrapping_sub(1))
                    && link.write_all(&GREETING).is_ok()
                {
                    *place = Some(link);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if begun.elapsed() > JOIN_TIMEOUT {
                    let got = 1 + links.iter().flatten().count();
                    return Err(ParallelError::Missing { world: *world, address: address.clone(), got });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(links.into_iter().flatten().collect())
}

/// Reads the rank of a connecting process.
fn read_greeting(link: &mut TcpStream, world: usize) -> io::Result<usize> {
    link.set_nonblocking(false)?;
    link.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut hello = [0; 24];
    link.read_exact(&mut hello)?;
    let word = |at: usize| hello[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    if hello[..8] != GREETING || word(16) != world as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    usize::try_from(word(8)).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Another process: the link to process 0, which may not listen yet.
fn connect(launch: &Launch) -> Result<TcpStream, ParallelError> {
    let Launch { rank, world, address, .. } = launch;
    let begun = Instant::now();
    let mut link = loop {
        match TcpStream::connect(address) {
            Ok(link) => break link,
            Err(source) if begun.elapsed() > JOIN_TIMEOUT => {
                return Err(ParallelError::Address {
                    action: "reach process 0 at",
                    address: address.clone(),
                    source,
                });
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    };
    let mut hello = GREETING.to_vec();
    hello.extend((*rank as u64).to_le_bytes());
    hello.extend((*world as u64).to_le_bytes());
    let mut answer = [0; 8];
    let answered = link
        .set_read_timeout(Some(JOIN_TIMEOUT))
        .and_then(|()| link.write_all(&hello))
        .and_then(|()| link.read_exact(&mut answer));
    match answered {
        Ok(()) if answer == GREETING => Ok(link),
        Ok(()) => Err(ParallelError::UnexpectedPeer { address: address.clone(), got: format!("{answer:?}") }),
        Err(reason) => {
            Err(ParallelError::UnexpectedPeer { address: address.clone(), got: reason.to_string() })
        }
    }
}

fn send<T: Number>(link: &mut TcpStream, numbers: &[T]) -> io::Result<()> {
    link.write_all(&(numbers.len() as u64).to_le_bytes())?;
    let mut bytes = Vec::with_capacity(CHUNK * size_of::<T>());
    for chunk in numbers.chunks(CHUNK) {
        bytes.clear();
        chunk.iter().for_each(|number| bytes.extend_from_slice(number.to_bytes().as_ref()));
        link.write_all(&bytes)?;
    }
    Ok(())
}

fn receive<T: Number>(
    link: &mut TcpStream,
    rank: usize,
    numbers: &mut [T],
    put: impl Fn(&mut T, T),
) -> Result<(), ParallelError> {
    let gone = |source| ParallelError::Disconnected { rank, source };
    let mut length = [0; 8];
    link.read_exact(&mut length).map_err(gone)?;
    let (got, expected) = (u64::from_le_bytes(length), numbers.len() as u64);
    if got != expected {
        return Err(ParallelError::Length { rank, expected, got });
    }
    let mut bytes = vec![0; CHUNK * size_of::<T>()];
    for chunk in numbers.chunks_mut(CHUNK) {
        let bytes = &mut bytes[..size_of_val(chunk)];
        link.read_exact(bytes).map_err(gone)?;
        for (number, word) in chunk.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
            let mut copy = T::Bytes::default();
            copy.as_mut().copy_from_slice(word);
            put(number, T::from_bytes(copy));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
