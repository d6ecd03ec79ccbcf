//! The order of samples: a random permutation per epoch.

use crate::random::{Purpose, Random};

/// The endless stream of samples: epoch after epoch, each a random order of all samples. Positions must be asked for in rising
/// order; one epoch is kept.
pub(super) struct Order {
    seed: u64,
    samples: u32,
    epoch: Option<u64>,
    /// `[samples]`
    shuffled: Vec<u32>,
}

impl Order {
    /// Of `samples` samples, positive.
    pub(super) fn new(seed: u64, samples: u32) -> Self {
        Self { seed, samples, epoch: None, shuffled: Vec::new() }
    }

    /// Sample and epoch at a position of the stream.
    pub(super) fn at(&mut self, position: u64) -> (u32, u64) {
        let (epoch, place) = (position / u64::from(self.samples), position % u64::from(self.samples));
        if self.epoch != Some(epoch) {
            // From the same start each time: an epoch's order must not depend on the previous one.
            self.shuffled.clear();
            self.shuffled.extend(0..self.samples);
            Random::new(Purpose::Epoch, self.seed, epoch, 0).shuffle(&mut self.shuffled);
            self.epoch = Some(epoch);
        }
        (self.shuffled[place as usize], epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_another_permutation() {
        let mut order = Order::new(7, 50);
        let stream: Vec<_> = (0..150).map(|position| order.at(position)).collect();
        let epochs: Vec<Vec<u32>> =
            stream.chunks(50).map(|epoch| epoch.iter().map(|at| at.0).collect()).collect();
        for (number, epoch) in epochs.iter().enumerate() {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
            assert!(stream[number * 50..][..50].iter().all(|at| at.1 == number as u64));
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
        assert_eq!(Order::new(7, 50).at(120), stream[120]);
        assert_ne!(Order::new(8, 50).at(120).0, stream[120].0);
    }
}
