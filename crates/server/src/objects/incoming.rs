//! Bodies of requests, in blocks, from clients that may be slow or leave.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::error::{ApiError, Result};

/// Bytes that are gathered before they go to the disk.
const BLOCK: usize = 256 << 10;

/// A body.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: BodyDataStream,
    silence: Duration,
    /// What went wrong behind the bytes that were passed on last.
    failed: Option<ApiError>,
    ended: bool,
}

impl Incoming {
    /// `silence` is how long the client may send nothing.
    pub(super) fn new(body: Body, silence: Duration) -> Incoming {
        Incoming {
            stream: body.into_data_stream(),
            silence,
            failed: None,
            ended: false,
        }
    }

    /// Returns the next bytes, many at once; `None` at the end.
    ///
    /// # Errors
    /// The client is too slow (408) or gone (400). What it sent before was returned before.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut block = BytesMut::new();
        while !self.ended && block.len() < BLOCK {
            match self.frame().await {
                Ok(Some(bytes)) => block.extend_from_slice(&bytes),
                Ok(None) => self.ended = true,
                Err(error) if block.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok((!block.is_empty()).then(|| block.freeze()))
    }

    async fn frame(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.silence, self.stream.next()).await;
        match next {
            Err(_) => Err(ApiError::too_slow(self.silence.as_secs())),
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(ApiError::invalid(format!(
                "the request's body broke off: {error}"
            ))),
        }
    }

    /// Reads a small body whole.
    ///
    /// # Errors
    /// It is longer than `most` bytes (413), or as [`Incoming::next`].
    pub(super) async fn whole(&mut self, most: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > most {
                return Err(ApiError::too_large(format!(
                    "the request's body is longer than {most} bytes"
                )));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}
