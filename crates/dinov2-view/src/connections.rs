//! Places for connections: how many there may be, and which one is ended when all are taken.
//!
//! A connection either waits (it has sent no complete request that may be answered) or is answered. Only those that wait are ended for
//! others, so whoever opens many connections and says nothing, or says it slowly, loses them to whoever comes with a request.
//! Requests for anything but health and metrics leave [`RESERVED_CONNECTIONS`] places alone.

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

/// All connections. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    held: Vec<Held>,
    next_id: u64,
}

/// What is known of a connection.
struct Held {
    id: u64,
    peer: Peer,
    /// Requests that are being answered: one, and the socket that came of it.
    answering: usize,
    /// Of these, the ones for anything but health and metrics.
    ordinary: usize,
    /// When it was accepted, or when its last answer ended.
    waiting_since: Instant,
    /// Ends it.
    task: Option<AbortHandle>,
}

/// A machine that connects: an IPv4 address, or the network part of an IPv6 address, since one machine has all of its 2^64.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Peer(IpAddr);

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Health or metrics: always answered.
    Monitoring,
    /// Anything else.
    Ordinary,
}

/// The place of a connection, given back when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Place(Arc<Taken>);

struct Taken {
    id: u64,
    places: Places,
}

/// A request is being answered: until this is dropped, its connection is not ended for others.
pub(crate) struct Answering {
    place: Place,
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

    /// A reverse proxy on this machine stands for everyone that it serves.
    fn may_stand_for_many(self) -> bool {
        self.0.is_loopback()
    }
}

impl Held {
    fn waits(&self) -> bool {
        self.answering == 0
    }
}

impl Table {
    fn waiting_of(&self, peer: Peer) -> usize {
        self.held.iter().filter(|held| held.waits() && held.peer == peer).count()
    }

    /// Ends the connection of `peer` that has waited longest.
    fn end_longest_of(&mut self, peer: Peer) {
        let waiting = self.held.iter().enumerate().filter(|(_, held)| held.waits() && held.peer == peer);
        if let Some((at, _)) = waiting.min_by_key(|(_, held)| held.waiting_since)
            && let Some(task) = self.held.swap_remove(at).task
        {
            task.abort();
        }
    }

    /// The peer with the most connections that wait; of several, the one that has waited longest.
    fn greediest(&self) -> Option<Peer> {
        let waiting = self.held.iter().filter(|held| held.waits());
        let key = |held: &&Held| (self.waiting_of(held.peer), std::cmp::Reverse(held.waiting_since));
        waiting.max_by_key(key).map(|held| held.peer)
    }
}

impl Places {
    /// A place for a new connection. Where its peer has too many that wait, or all places are taken, one that waits is ended for
    /// it. None if every connection is being answered.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let peer = Peer::of(address);
        let mut table = lock(&self.0);
        if !peer.may_stand_for_many() && table.waiting_of(peer) >= MAX_WAITING_PER_PEER {
            table.end_longest_of(peer);
        }
        if table.held.len() >= MAX_CONNECTIONS {
            let greediest = table.greediest()?;
            table.end_longest_of(greediest);
        }
        let id = table.next_id;
        table.next_id += 1;
        let waiting_since = Instant::now();
        table.held.push(Held { id, peer, answering: 0, ordinary: 0, waiting_since, task: None });
        Some(Place(Arc::new(Taken { id, places: self.clone() })))
    }
}

impl Place {
    /// Says what is to be ended when the place is needed for another connection.
    pub(crate) fn ends(&self, task: AbortHandle) {
        match lock(&self.0.places.0).held.iter_mut().find(|held| held.id == self.0.id) {
            Some(held) => held.task = Some(task),
            None => task.abort(),
        }
    }

    /// Begins an answer. None if the places that are left are for monitoring.
    pub(crate) fn answer(&self, purpose: Purpose) -> Option<Answering> {
        let mut table = lock(&self.0.places.0);
        let others = table.held.iter().filter(|held| held.ordinary > 0 && held.id != self.0.id).count();
        if purpose == Purpose::Ordinary && others >= MAX_CONNECTIONS - RESERVED_CONNECTIONS {
            return None;
        }
        let held = table.held.iter_mut().find(|held| held.id == self.0.id)?;
        held.answering += 1;
        held.ordinary += usize::from(purpose == Purpose::Ordinary);
        Some(Answering { place: self.clone(), purpose })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        lock(&self.places.0).held.retain(|held| held.id != self.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let taken = &self.place.0;
        if let Some(held) = lock(&taken.places.0).held.iter_mut().find(|held| held.id == taken.id) {
            held.answering -= 1;
            held.ordinary -= usize::from(self.purpose == Purpose::Ordinary);
            held.waiting_since = Instant::now();
        }
    }
}

/// The body of an answer, which lasts until it is sent.
pub(crate) struct AnsweringBody {
    pub(crate) body: Body,
    pub(crate) _answering: Answering,
}

impl HttpBody for AnsweringBody {
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

    fn is_held(place: &Place) -> bool {
        lock(&place.0.places.0).held.iter().any(|held| held.id == place.0.id)
    }

    #[test]
    fn the_longest_wait_ends_first_and_answers_never() {
        let places = Places::default();
        let all: Vec<Place> = (0..MAX_CONNECTIONS).map(|_| places.take(PROXY).unwrap()).collect();
        let answered = all[0].answer(Purpose::Ordinary).unwrap();
        // Answered and waiting anew: its wait begins now.
        drop(all[1].answer(Purpose::Monitoring).unwrap());
        let more: Vec<Place> = (0..3).map(|_| places.take(PROXY).unwrap()).collect();
        let ended: Vec<usize> = (0..all.len()).filter(|&at| !is_held(&all[at])).collect();
        assert_eq!(ended, [2, 3, 4]);
        assert!(more.iter().all(is_held));
        assert!(all[2].answer(Purpose::Monitoring).is_none(), "an answer on an ended connection");
        drop(answered);
        drop(more);
        assert_eq!(lock(&places.0).held.len(), MAX_CONNECTIONS - 3);
    }

    #[test]
    fn a_greedy_peer_loses_its_own() {
        let places = Places::default();
        let modest = places.take(v4(1)).unwrap();
        let greedy: Vec<Place> = (0..2 * MAX_WAITING_PER_PEER).map(|_| places.take(v4(2)).unwrap()).collect();
        assert_eq!(greedy.iter().filter(|place| is_held(place)).count(), MAX_WAITING_PER_PEER);
        assert!(greedy[MAX_WAITING_PER_PEER..].iter().all(is_held), "not the longest wait");
        // Many peers take what is left and more: the greedy one pays for it.
        let crowd: Vec<Place> =
            (10..7 + MAX_CONNECTIONS as u8).map(|last| places.take(v4(last)).unwrap()).collect();
        assert!(is_held(&modest) && crowd.iter().all(is_held));
        assert_eq!(greedy.iter().filter(|place| is_held(place)).count(), 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_proxy_is_many() {
        let v6 = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        assert!(Peer::of(v6(1)) == Peer::of(v6(2)));
        assert!(Peer::of(IpAddr::V6(Ipv6Addr::LOCALHOST)).may_stand_for_many());
        assert!(Peer::of("::ffff:127.0.0.1".parse().unwrap()).may_stand_for_many());
        assert!(Peer::of("::ffff:192.168.1.1".parse().unwrap()) == Peer::of(v4(1)));
        let places = Places::default();
        let behind: Vec<Place> = (0..MAX_CONNECTIONS).map(|_| places.take(PROXY).unwrap()).collect();
        assert!(behind.iter().all(is_held));
    }

    #[test]
    fn monitoring_has_places_that_nothing_else_takes() {
        let places = Places::default();
        let all: Vec<Place> = (0..MAX_CONNECTIONS).map(|_| places.take(PROXY).unwrap()).collect();
        let answers: Vec<_> = all.iter().map(|place| place.answer(Purpose::Ordinary)).collect();
        let answered = answers.iter().flatten().count();
        assert_eq!(answered, MAX_CONNECTIONS - RESERVED_CONNECTIONS);
        // The request and the socket that comes of it are one connection.
        assert!(all[0].answer(Purpose::Ordinary).is_some());
        let monitoring: Vec<_> = all.iter().map(|place| place.answer(Purpose::Monitoring)).collect();
        assert!(monitoring.iter().all(Option::is_some));
        assert!(places.take(PROXY).is_none(), "a place where every connection is answered");
    }
}
