//! Mail over SMTP.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};

use super::message::Message;
use super::{Tell, Trouble};

/// How long each exchange with the mail server may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mail server, and who writes to whom.
pub(super) struct Mail {
    transport: SmtpTransport,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS after a greeting; without it nothing is sent.
    StartTls,
    /// None: a server on this machine.
    None,
}

/// Where the mail server is.
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) security: Security,
    pub(super) user: Option<(String, String)>,
}

impl Mail {
    pub(super) fn new(place: Place, from: &str, to: &[String]) -> Result<Mail, String> {
        let mailbox = |text: &String| {
            text.parse::<Mailbox>()
                .map_err(|error| format!("{text:?} is no mail address: {error}"))
        };
        let parameters =
            || TlsParameters::new(place.host.clone()).map_err(|error| error.to_string());
        let (tls, port) = match place.security {
            Security::Tls => (Tls::Wrapper(parameters()?), 465),
            Security::StartTls => (Tls::Required(parameters()?), 587),
            Security::None => (Tls::None, 25),
        };
        let mut transport = SmtpTransport::builder_dangerous(&place.host)
            .port(place.port.unwrap_or(port))
            .tls(tls)
            .timeout(Some(PATIENCE));
        if let Some((user, password)) = place.user {
            transport = transport.credentials(Credentials::new(user, password));
        }
        Ok(Mail {
            transport: transport.build(),
            from: mailbox(&from.to_owned())?,
            to: to.iter().map(mailbox).collect::<Result<_, _>>()?,
        })
    }
}

impl Tell for Mail {
    fn tell(&self, message: &Message<'_>) -> Result<(), Trouble> {
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .subject(message.title())
            .message_id(Some(format!("<{}@kiln>", message.id)))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        let mail = mail
            .body(message.text())
            .map_err(|error| Trouble::Lasting(error.to_string()))?;
        match self.transport.send(&mail) {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(Trouble::Lasting(error.to_string())),
            Err(error) => Err(Trouble::Passing(error.to_string())),
        }
    }
}
