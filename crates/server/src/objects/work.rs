//! Work beside the threads that serve, and what all of it needs.

use super::error::{ApiError, Result};

/// Runs something that waits for the disk away from the threads that serve.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// Does what must not end half-way although the client has gone.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// An id that nobody guesses.
pub(super) fn random() -> Result<String> {
    let mut bytes = [0_u8; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| ApiError::of_io("reading /dev/urandom", &error))?;
    Ok(hex::encode(bytes))
}
