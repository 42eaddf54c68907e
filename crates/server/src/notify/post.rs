//! POST over HTTP, for all kinds of targets.

use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::Trouble;

/// How long a target may take altogether.
const PATIENCE: Duration = Duration::from_secs(20);

/// Posts a body with headers. Redirects are not followed: a target is what the administrator named.
pub(super) fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Trouble> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut request = Agent::new_with_config(config).post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request
        .send(body)
        .map_err(|error| Trouble::Passing(error.to_string()))?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        status @ (408 | 425 | 429 | 500..=599) => Err(Trouble::Passing(format!(
            "it answers with HTTP status {status}"
        ))),
        status => Err(Trouble::Lasting(format!(
            "it answers with HTTP status {status}"
        ))),
    }
}
