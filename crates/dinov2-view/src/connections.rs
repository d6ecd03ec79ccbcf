//! The limit on connections: how many may be open, and which one is closed when the limit is reached.
//!
//! A connection is idle (it has sent no complete, authorised request) or has active requests. Only idle connections are closed to
//! make room, so a client that opens many connections and sends nothing, or sends slowly, loses them to clients that send
//! requests. Requests for anything but health and metrics leave [`RESERVED_CONNECTIONS`] connections free.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::limits::{MAX_CONNECTIONS, MAX_WAITING_PER_PEER, RESERVED_CONNECTIONS};
use crate::shared::lock;

/// The open connections. Clones share one table.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: Vec<Connection>,
    next_id: u64,
}

/// One open connection.
struct Connection {
    id: u64,
    peer: Peer,
    /// Active requests: at most one, plus the web socket that it was upgraded to.
    active: usize,
    /// Active requests for anything but health and metrics.
    ordinary: usize,
    /// When it was accepted, or when its last request ended.
    idle_since: Instant,
    /// Closes the connection when aborted.
    task: Option<AbortHandle>,
}

/// A client machine: an IPv4 address, or the /64 network of an IPv6 address, because one machine may use all addresses of its network.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Peer(IpAddr);

/// The class of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Health or metrics: always served.
    Monitoring,
    /// Anything else.
    Ordinary,
}

/// The slot of one connection; freed when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Slot(Arc<SlotOwner>);

struct SlotOwner {
    id: u64,
    connections: Connections,
}

/// An active request: until this is dropped, its connection is not closed to make room for others.
pub(crate) struct ActiveRequest {
    slot: Slot,
    purpose: Purpose,
}

impl Peer {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
            }
            address => address,
        })
    }

    /// A loopback peer may be a reverse proxy, which connects for many clients.
    fn may_be_proxy(self) -> bool {
        self.0.is_loopback()
    }
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.active == 0
    }
}

impl Table {
    fn idle_of(&self, peer: Peer) -> usize {
        self.open.iter().filter(|connection| connection.is_idle() && connection.peer == peer).count()
    }

    /// Closes the connection of `peer` that has been idle longest.
    fn end_longest_idle(&mut self, peer: Peer) {
        let idle = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, connection)| connection.is_idle() && connection.peer == peer);
        if let Some((at, _)) = idle.min_by_key(|(_, connection)| connection.idle_since)
            && let Some(task) = self.open.swap_remove(at).task
        {
            task.abort();
        }
    }

    /// The peer with the most idle connections; among equals, the one with the longest idle connection.
    fn most_idle_peer(&self) -> Option<Peer> {
        let idle = self.open.iter().filter(|connection| connection.is_idle());
        let key = |connection: &&Connection| {
            (self.idle_of(connection.peer), std::cmp::Reverse(connection.idle_since))
        };
        idle.max_by_key(key).map(|connection| connection.peer)
    }
}

impl Connections {
    /// A slot for a new connection. If its peer has too many idle connections, or the limit is reached, an idle one is closed.
    /// None if the limit is reached and no connection is idle.
    pub(crate) fn open(&self, address: IpAddr) -> Option<Slot> {
        let peer = Peer::of(address);
        let mut table = lock(&self.0);
        if !peer.may_be_proxy() && table.idle_of(peer) >= MAX_WAITING_PER_PEER {
            table.end_longest_idle(peer);
        }
        if table.open.len() >= MAX_CONNECTIONS {
            let peer = table.most_idle_peer()?;
            table.end_longest_idle(peer);
        }
        let id = table.next_id;
        table.next_id += 1;
        let idle_since = Instant::now();
        table.open.push(Connection { id, peer, active: 0, ordinary: 0, idle_since, task: None });
        Some(Slot(Arc::new(SlotOwner { id, connections: self.clone() })))
    }
}

impl Slot {
    /// Sets the task that is aborted when the slot is needed for another connection.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        match lock(&self.0.connections.0).open.iter_mut().find(|connection| connection.id == self.0.id) {
            Some(connection) => connection.task = Some(task),
            None => task.abort(),
        }
    }

    /// Begins a request. None if the connection was closed or the remaining slots are reserved for monitoring.
    pub(crate) fn begin_request(&self, purpose: Purpose) -> Option<ActiveRequest> {
        let mut table = lock(&self.0.connections.0);
        let others = table
            .open
            .iter()
            .filter(|connection| connection.ordinary > 0 && connection.id != self.0.id)
            .count();
        if purpose == Purpose::Ordinary && others >= MAX_CONNECTIONS - RESERVED_CONNECTIONS {
            return None;
        }
        let connection = table.open.iter_mut().find(|connection| connection.id == self.0.id)?;
        connection.active += 1;
        connection.ordinary += usize::from(purpose == Purpose::Ordinary);
        Some(ActiveRequest { slot: self.clone(), purpose })
    }
}

impl Drop for SlotOwner {
    fn drop(&mut self) {
        lock(&self.connections.0).open.retain(|connection| connection.id != self.id);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let owner = &self.slot.0;
        let mut table = lock(&owner.connections.0);
        if let Some(connection) = table.open.iter_mut().find(|connection| connection.id == owner.id) {
            connection.active -= 1;
            connection.ordinary -= usize::from(self.purpose == Purpose::Ordinary);
            connection.idle_since = Instant::now();
        }
    }
}

/// A response body that keeps its request active until it is sent.
pub(crate) struct TrackedBody {
    pub(crate) body: Body,
    pub(crate) _request: ActiveRequest,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 168, 1, last))
    }

    fn is_open(slot: &Slot) -> bool {
        lock(&slot.0.connections.0).open.iter().any(|connection| connection.id == slot.0.id)
    }

    #[test]
    fn the_longest_idle_connection_is_closed_and_active_ones_are_kept() {
        let connections = Connections::default();
        let all: Vec<Slot> = (0..MAX_CONNECTIONS).map(|_| connections.open(PROXY).unwrap()).collect();
        let answered = all[0].begin_request(Purpose::Ordinary).unwrap();
        // Served and idle again: its idle time begins now.
        drop(all[1].begin_request(Purpose::Monitoring).unwrap());
        let more: Vec<Slot> = (0..3).map(|_| connections.open(PROXY).unwrap()).collect();
        let closed: Vec<usize> = (0..all.len()).filter(|&at| !is_open(&all[at])).collect();
        assert_eq!(closed, [2, 3, 4]);
        assert!(more.iter().all(is_open));
        assert!(all[2].begin_request(Purpose::Monitoring).is_none(), "a request on a closed connection");
        drop(answered);
        drop(more);
        assert_eq!(lock(&connections.0).open.len(), MAX_CONNECTIONS - 3);
    }

    #[test]
    fn a_greedy_peer_loses_its_own() {
        let connections = Connections::default();
        let modest = connections.open(v4(1)).unwrap();
        let greedy: Vec<Slot> =
            (0..2 * MAX_WAITING_PER_PEER).map(|_| connections.open(v4(2)).unwrap()).collect();
        assert_eq!(greedy.iter().filter(|slot| is_open(slot)).count(), MAX_WAITING_PER_PEER);
        assert!(greedy[MAX_WAITING_PER_PEER..].iter().all(is_open), "not the longest idle one");
        // Many peers need more than the free slots: the greedy peer's connections are closed.
        let crowd: Vec<Slot> =
            (10..7 + MAX_CONNECTIONS as u8).map(|last| connections.open(v4(last)).unwrap()).collect();
        assert!(is_open(&modest) && crowd.iter().all(is_open));
        assert_eq!(greedy.iter().filter(|slot| is_open(slot)).count(), 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_proxy_is_many() {
        let v6 = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        assert!(Peer::of(v6(1)) == Peer::of(v6(2)));
        assert!(Peer::of(IpAddr::V6(Ipv6Addr::LOCALHOST)).may_be_proxy());
        assert!(Peer::of("::ffff:127.0.0.1".parse().unwrap()).may_be_proxy());
        assert!(Peer::of("::ffff:192.168.1.1".parse().unwrap()) == Peer::of(v4(1)));
        let connections = Connections::default();
        let behind: Vec<Slot> = (0..MAX_CONNECTIONS).map(|_| connections.open(PROXY).unwrap()).collect();
        assert!(behind.iter().all(is_open));
    }

    #[test]
    fn slots_are_reserved_for_monitoring() {
        let connections = Connections::default();
        let all: Vec<Slot> = (0..MAX_CONNECTIONS).map(|_| connections.open(PROXY).unwrap()).collect();
        let answers: Vec<_> = all.iter().map(|slot| slot.begin_request(Purpose::Ordinary)).collect();
        let answered = answers.iter().flatten().count();
        assert_eq!(answered, MAX_CONNECTIONS - RESERVED_CONNECTIONS);
        // A request and the socket that it is upgraded to are one connection.
        assert!(all[0].begin_request(Purpose::Ordinary).is_some());
        let monitoring: Vec<_> = all.iter().map(|slot| slot.begin_request(Purpose::Monitoring)).collect();
        assert!(monitoring.iter().all(Option::is_some));
        assert!(connections.open(PROXY).is_none(), "a slot although every connection is active");
    }
}
