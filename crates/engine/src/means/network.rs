//! What the scripts of a build have of the network.

use std::sync::OnceLock;

use kiln_packages::Proxies;
use kiln_rootfs::network::{Access, Reach, resolv_conf};

use crate::request::BuildRequest;
use crate::steps::Steps;

/// Settled when the first script needs it.
pub(crate) struct ScriptNetwork {
    asked: Reach,
    proxies: Proxies,
    settled: OnceLock<Reach>,
    access: OnceLock<Access>,
}

impl ScriptNetwork {
    pub(crate) fn of(request: &BuildRequest) -> Self {
        ScriptNetwork {
            asked: match request.offline {
                true => Reach::None,
                false => request.network,
            },
            proxies: request.proxies.clone(),
            settled: OnceLock::new(),
            access: OnceLock::new(),
        }
    }

    /// How far scripts reach: as asked, but not at all where this machine cannot give them a network of their own. They never get
    /// the machine's for that.
    pub(crate) fn settle(&self, steps: &Steps<'_>) -> Reach {
        *self.settled.get_or_init(|| {
            let Reach::Own = self.asked else {
                return self.asked;
            };
            match kiln_sandbox::own_network() {
                Ok(()) => Reach::Own,
                Err(error) => {
                    let other = "say --network host, if the scripts may reach what listens on this machine, or --network none";
                    let hint = match &error.hint {
                        Some(own) => format!("{own}; or {other}"),
                        None => other.to_owned(),
                    };
                    steps.warn(format!("scripts have no network: {error}"), None, Some(hint));
                    Reach::None
                }
            }
        })
    }

    /// What scripts get.
    pub(crate) fn access(&self, steps: &Steps<'_>) -> Access {
        let make = || {
            let resolv_conf = resolv_conf().unwrap_or_else(|error| {
                steps.warn(
                    format!("scripts do not get this machine's name servers: reading /etc/resolv.conf: {error}"),
                    None,
                    Some("make it readable for the user who builds".to_owned()),
                );
                String::new()
            });
            Access::new(self.settle(steps), &resolv_conf, &self.proxies)
        };
        self.access.get_or_init(make).clone()
    }
}
