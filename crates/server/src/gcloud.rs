//! What Google's command line needs to be told so that it talks to a server of this kind, and to nobody else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::{Host, Url};

use crate::objects::CERTIFICATE;

/// Bytes of a certificate, at most.
const CERTIFICATE_MAX: u64 = 64 << 10;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there are no settings.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server's address cannot be used.
    #[error("the server's address {0} cannot be used: {1}")]
    Address(String, &'static str),
    /// The project's name would not be taken by the command line.
    #[error(
        "{0} is no name of a project: 6 to 30 lower-case letters, digits and '-', with a letter first"
    )]
    Project(String),
    /// The server does not answer, or is no build server.
    #[error("{0} does not give a certificate: {1}")]
    Server(String, String),
}

/// A server's address that the command line can use.
#[derive(Clone, Debug)]
pub struct Server {
    url: Url,
    host: String,
    port: u16,
}

impl Server {
    /// Reads an address.
    ///
    /// # Errors
    /// It is no `http://HOST[:PORT]`.
    pub fn new(address: &str) -> Result<Server, Error> {
        let wrong = |why| Error::Address(address.to_owned(), why);
        let url =
            Url::parse(address).map_err(|_| wrong("it is no URL; one is http://HOST:PORT"))?;
        match url.scheme() {
            "http" => {}
            // The command line speaks to its proxy without TLS, and the proxy is the server.
            "https" => {
                return Err(wrong(
                    "gcloud reads logs through a proxy, which the server is, and gcloud speaks no TLS with a proxy; use the server's http:// address, through an SSH tunnel where others could listen",
                ));
            }
            _ => return Err(wrong("it does not begin with http://")),
        }
        let is_plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !is_plain {
            return Err(wrong("it has more than a host and a port"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(wrong("it names no host")),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Server { url, host, port })
    }

    /// Asks the server for the certificate of its authority, in PEM.
    ///
    /// # Errors
    /// It does not answer, or with something else.
    pub fn certificate(&self) -> Result<String, Error> {
        let failed = |why: String| Error::Server(self.url.to_string(), why);
        let url = format!("{}{}", self.url.as_str().trim_end_matches('/'), CERTIFICATE);
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .build();
        let answer = ureq::Agent::new_with_config(config).get(&url).call();
        let mut answer = answer.map_err(|error| failed(error.to_string()))?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(CERTIFICATE_MAX)
            .read_to_string()
            .map_err(|error| failed(error.to_string()))?;
        if !text.starts_with("-----BEGIN CERTIFICATE-----") {
            return Err(failed(
                "what it answers is none; is it a build server of Kiln?".to_owned(),
            ));
        }
        Ok(text)
    }
}

/// What the command line is to use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub server: Server,
    /// The project that builds and buckets belong to.
    pub project: String,
    /// The file with the certificate of the server's authority.
    pub certificate: PathBuf,
    /// The file with the token; without one no credentials are sent.
    pub token: Option<PathBuf>,
}

/// A property of the command line: its section, its name, and its value.
type Property = (&'static str, &'static str, String);

impl Settings {
    /// Checks a project's name.
    ///
    /// # Errors
    /// It is none.
    pub fn check_project(name: &str) -> Result<(), Error> {
        let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let well = (6..=30).contains(&name.len()) && name.bytes().all(is_inner);
        if first && well && !name.ends_with('-') {
            return Ok(());
        }
        Err(Error::Project(name.to_owned()))
    }

    /// What is needed.
    fn properties(&self) -> Vec<Property> {
        let server = &self.server;
        let certificate = self.certificate.display().to_string();
        let mut all: Vec<Property> = vec![
            ("core", "project", self.project.clone()),
            ("core", "custom_ca_certs_file", certificate),
            ("core", "check_gce_metadata", "false".to_owned()),
            ("core", "disable_usage_reporting", "true".to_owned()),
            (
                "api_endpoint_overrides",
                "cloudbuild",
                server.url.to_string(),
            ),
            (
                "api_endpoint_overrides",
                "storage",
                format!("{}storage/v1/", server.url),
            ),
            // A proxy of this command alone: other programs of the shell keep theirs.
            ("proxy", "type", "http".to_owned()),
            ("proxy", "address", server.host.clone()),
            ("proxy", "port", server.port.to_string()),
            ("survey", "disable_prompts", "true".to_owned()),
            (
                "component_manager",
                "disable_update_check",
                "true".to_owned(),
            ),
        ];
        all.push(match &self.token {
            Some(file) => ("auth", "access_token_file", file.display().to_string()),
            None => ("auth", "disable_credentials", "true".to_owned()),
        });
        all
    }

    /// Returns them as variables of the environment, with that of the Python clients.
    pub fn variables(&self) -> Vec<(String, String)> {
        let name =
            |section: &str, name: &str| format!("CLOUDSDK_{section}_{name}").to_ascii_uppercase();
        let properties = self.properties().into_iter();
        let mut all: Vec<(String, String)> = properties
            .map(|(section, property, value)| (name(section, property), value))
            .collect();
        all.push(("CLOUDSDK_CORE_DISABLE_PROMPTS".to_owned(), "1".to_owned()));
        let base = self.server.url.as_str().trim_end_matches('/');
        all.push(("STORAGE_EMULATOR_HOST".to_owned(), base.to_owned()));
        all
    }

    /// Returns them as a file of the command line's configurations.
    pub fn configuration(&self) -> String {
        let mut text = String::from("# Written by `kiln gcloud-env --install`.\n");
        let mut sections: Vec<(&str, String)> = Vec::new();
        for (section, property, value) in self.properties() {
            // Its reader takes % as the start of a reference.
            let line = format!("{property} = {}\n", value.replace('%', "%%"));
            match sections.iter_mut().find(|(known, _)| *known == section) {
                Some((_, lines)) => lines.push_str(&line),
                None => sections.push((section, line)),
            }
        }
        for (section, lines) in sections {
            text.push_str(&format!("\n[{section}]\n{lines}"));
        }
        text
    }
}

/// A line that a POSIX shell takes.
pub fn export(name: &str, value: &str) -> impl fmt::Display {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"-._/:=@%+,".contains(&b);
    if value.bytes().all(harmless) {
        return format!("export {name}={value}");
    }
    format!("export {name}='{}'", value.replace('\'', r"'\''"))
}

/// Where the command line keeps a configuration of that name, below its own directory.
pub fn configuration_file(directory: &Path, name: &str) -> PathBuf {
    directory
        .join("configurations")
        .join(format!("config_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str) -> Settings {
        Settings {
            server: Server::new(address).unwrap(),
            project: "demo-proj".to_owned(),
            certificate: "/tmp/a b/ca.pem".into(),
            token: None,
        }
    }

    #[test]
    fn variables_and_file_say_the_same() {
        let settings = settings("http://127.0.0.1:8470");
        let variables = settings.variables();
        let value = |name: &str| {
            let found = variables.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            value("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE"),
            Some("http://127.0.0.1:8470/storage/v1/")
        );
        assert_eq!(
            value("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD"),
            Some("http://127.0.0.1:8470/")
        );
        assert_eq!(value("CLOUDSDK_PROXY_PORT"), Some("8470"));
        assert_eq!(value("CLOUDSDK_AUTH_DISABLE_CREDENTIALS"), Some("true"));
        let file = settings.configuration();
        assert!(
            file.contains("[proxy]\ntype = http\naddress = 127.0.0.1\nport = 8470\n"),
            "{file}"
        );
    }

    #[test]
    fn a_shell_reads_what_is_meant() {
        assert_eq!(
            export("A", "http://x:1/").to_string(),
            "export A=http://x:1/"
        );
        assert_eq!(export("A", "it's").to_string(), r"export A='it'\''s'");
        assert_eq!(export("A", "a b$(c)").to_string(), "export A='a b$(c)'");
    }

    #[test]
    fn addresses_that_gcloud_cannot_use_are_refused() {
        assert_eq!(Server::new("http://[::1]:80").unwrap().host, "::1");
        for bad in [
            "https://a.example",
            "ftp://a.example",
            "a",
            "http://a.example/x",
            "http://u:p@a.example",
        ] {
            assert!(Server::new(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "kiln",
            "Demo-proj",
            "1-demo-x",
            "demo-proj-",
            "demo_proj",
        ] {
            assert!(Settings::check_project(bad).is_err(), "{bad}");
        }
        assert!(Settings::check_project("demo-proj").is_ok());
    }
}
