//! HTTP for stores: the client of `object_store`, with one more kind of error retried.

use std::error::Error;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Result};

/// Connects to a store.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Repeatable(ReqwestConnector::default().connect(options)?)))
    }
}

/// Reports a request whose connection was closed early as not sent, so that it is retried.
#[derive(Debug)]
struct Repeatable(HttpClient);

#[async_trait]
impl HttpService for Repeatable {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        self.0.execute(request).await.map_err(|error| {
            if error.kind() == HttpErrorKind::Unknown && is_cancelled(&error) {
                HttpError::new(HttpErrorKind::Request, error)
            } else {
                error
            }
        })
    }
}

fn is_cancelled(error: &HttpError) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = inner.source();
    }
    false
}
