//! The fastest kernel of each matrix product on one device, as measured so far and as kept from start to start.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Name of the fastest kernel by the name of its product (number type, rows x k x n, activation, output).
#[derive(Default)]
pub(crate) struct MeasuredProducts(Mutex<BTreeMap<String, String>>);

impl MeasuredProducts {
    /// Name of the file among what is kept of a device.
    pub(crate) const FILE: &str = "products.json";

    /// What [`Self::insert`] gave earlier; nothing where there is no such file or it cannot be read.
    pub(crate) fn from_json(json: Option<&[u8]>) -> Self {
        Self(Mutex::new(json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()))
    }

    pub(crate) fn get(&self, product: &str) -> Option<String> {
        self.lock().get(product).cloned()
    }

    /// Adds a kernel and returns the content of the file to keep.
    pub(crate) fn insert(&self, product: String, kernel: String) -> Option<Vec<u8>> {
        let mut products = self.lock();
        products.insert(product, kernel);
        serde_json::to_vec_pretty(&*products).ok()
    }

    /// Pairs of product and kernel, sorted by product.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.lock().clone().into_iter().collect()
    }

    /// A panic while the map is locked leaves it whole: the only change is one insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_known_at_the_next_start() {
        let first = MeasuredProducts::from_json(None);
        assert_eq!(first.get("f32 64x384x384"), None);
        let json = first.insert("f32 64x384x384".into(), "registers 64x64".into()).unwrap();
        let next = MeasuredProducts::from_json(Some(&json));
        assert_eq!(next.get("f32 64x384x384").as_deref(), Some("registers 64x64"));
        assert_eq!(next.list(), first.list());
        assert!(MeasuredProducts::from_json(Some(b"no JSON")).list().is_empty());
    }
}
