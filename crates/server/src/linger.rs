//! The rest of a body whose request is answered before all of it was read.
//!
//! Most clients listen only when they have said all, and a connection that is closed with bytes unread loses the answer on its way.
//! So the rest is read, for a while, and thrown away.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};

/// Bytes that are still taken.
const MOST: usize = 64 << 20;
/// How long they are.
const LISTENING: Duration = Duration::from_secs(5);

/// Stands around all routes.
pub(crate) async fn listen(request: Request, next: Next) -> Response {
    // Who asks before it sends is not told to send.
    if request.headers().contains_key(header::EXPECT) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let left = Arc::default();
    let lent = |body| {
        Body::new(Lent {
            body: Some(body),
            left: Arc::clone(&left),
        })
    };
    let response = next.run(request.map(lent)).await;
    let rest = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest {
        // Who says nothing more has heard why, or has gone.
        let _ = tokio::time::timeout(LISTENING, throw_away(rest)).await;
    }
    response
}

async fn throw_away(body: Body) {
    let mut left = MOST;
    let mut stream = body.into_data_stream();
    while let Some(Ok(bytes)) = stream.next().await {
        match left.checked_sub(bytes.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A body that is given back by whoever drops it before its end.
struct Lent {
    body: Option<Body>,
    left: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let known = self.body.as_ref().map(HttpBody::size_hint);
        known.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
