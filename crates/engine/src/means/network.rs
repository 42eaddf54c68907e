//! What the scripts of a build have of the network.

use std::sync::OnceLock;

use kiln_packages::Proxies;
use kiln_rootfs::network::{Access, Reach};

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
                    let hint = error.hint.clone().unwrap_or_default();
                    steps.warn(
                        format!("scripts have no network: {error}"),
                        None,
                        Some(format!(
                            "{hint}; or say --network host, if the scripts may reach what listens on this machine, or --network none"
                        )),
                    );
                    Reach::None
                }
            }
        })
    }

    /// What scripts get.
    pub(crate) fn access(&self, steps: &Steps<'_>) -> Access {
        let make = || {
            // Without it the C library asks this machine, and so does the access.
            let resolv_conf = std::fs::read("/etc/resolv.conf").unwrap_or_default();
            let resolv_conf = String::from_utf8_lossy(&resolv_conf);
            Access::new(self.settle(steps), &resolv_conf, &self.proxies)
        };
        self.access.get_or_init(make).clone()
    }
}
