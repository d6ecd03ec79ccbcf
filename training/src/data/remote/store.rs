//! Connections to stores. Credentials, regions and endpoints come from the environment, under the names that `object_store`
//! documents (`AWS_…`, `GOOGLE_…`, `AZURE_…`).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::connect::Connector;
use super::reason::reason;
use crate::data::DataError;

/// Retry time while a run starts: typing errors should be reported soon.
const STARTUP_RETRY: Duration = Duration::from_secs(8);
/// Retry time during a run: long enough for a server to restart. `object_store` requires less than 5
/// minutes, so that credentials stay valid.
const RUN_RETRY: Duration = Duration::from_secs(120);
/// Longest pause between two requests.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A bucket, a container or a server.
pub(super) struct Store {
    /// With the retry time of the start.
    pub(super) startup: Arc<dyn ObjectStore>,
    /// With the retry time of a run.
    running: Arc<dyn ObjectStore>,
    /// Whether a retry failed. One is enough: a run that ends must not wait for each of its threads.
    is_lost: AtomicBool,
}

/// The stores that are in use, by their addresses: all shards of a bucket share its connections.
#[derive(Default)]
pub(in crate::data) struct Stores(HashMap<String, Arc<Store>>);

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Stores {
    /// The store of an address, and the place in it. Nothing is sent yet.
    pub(super) fn at(&mut self, address: &str) -> Result<(Arc<Store>, Path), DataError> {
        let refused = |reason: String| DataError::Remote { reason, path: address.to_string() };
        // The type is inferred, so that the crate `url` is not a direct dependency.
        let url = address.parse().map_err(|error| refused(format!("{error}")))?;
        let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|error| refused(error.to_string()))?;
        if url.query().or(url.fragment()).is_some() {
            let expected = "an address without ? and # (%3F and %23 in names)".into();
            return Err(DataError::Input { expected, got: address.to_string() });
        }
        let key = address.trim_end_matches('/');
        let base = key.strip_suffix(path.as_ref()).unwrap_or(key);
        if let Some(store) = self.0.get(base) {
            return Ok((Arc::clone(store), path));
        }
        let connect = |time| connect(&scheme, base, time).map_err(|error| refused(reason(&error)));
        let store = Arc::new(Store::new(connect(STARTUP_RETRY)?, connect(RUN_RETRY)?));
        self.0.insert(base.to_string(), Arc::clone(&store));
        Ok((store, path))
    }
}

impl Store {
    pub(super) fn new(startup: Arc<dyn ObjectStore>, running: Arc<dyn ObjectStore>) -> Self {
        Self { startup, running, is_lost: AtomicBool::new(false) }
    }

    /// Reads while a run is under way.
    pub(super) async fn read(&self, path: &Path, range: Range<u64>) -> object_store::Result<Vec<u8>> {
        let is_lost = self.is_lost.load(Ordering::Relaxed);
        let read = if is_lost { &self.startup } else { &self.running }.get_range(path, range).await;
        self.is_lost.store(read.is_err(), Ordering::Relaxed);
        Ok(read?.into())
    }
}

/// base: the address without the place in the store.
fn connect(
    scheme: &ObjectStoreScheme,
    base: &str,
    time: Duration,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: MAX_PAUSE, ..BackoffConfig::default() },
        // The time is the limit.
        max_retries: 1_000,
        retry_timeout: time,
    };
    Ok(match scheme {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(base).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(base).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(base).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
        ObjectStoreScheme::Http => {
            let options = ClientOptions::new().with_allow_http(base.starts_with("http:"));
            let server = base.split('/').take(3).collect::<Vec<_>>().join("/");
            let builder = HttpBuilder::new().with_url(server).with_client_options(options);
            Arc::new(builder.with_http_connector(Connector).with_retry(retry).build()?)
        }
        other => {
            let source = format!("expected an address of s3, gs, az, http, https or file, got {other:?}");
            return Err(object_store::Error::NotSupported { source: source.into() });
        }
    })
}

/// The runtime that waits for answers, one for all threads.
pub(super) fn runtime(address: &str) -> Result<&'static Runtime, DataError> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(1).thread_name("object-store").enable_all().build()
    });
    runtime
        .as_ref()
        .map_err(|error| DataError::Remote { reason: error.to_string(), path: address.to_string() })
}
