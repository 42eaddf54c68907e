//! The means of a build: what its verbs work with. None of them is here.

pub(crate) mod digest;
pub(crate) mod limits;
pub(crate) mod network;
pub(crate) mod output;
mod processor;
pub(crate) mod vendored;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use kiln_packages::{DownloadStore, FetchOptions, Fetcher};
use kiln_plan::Lowered;
use kiln_rootfs::{Family, Store};
use kiln_sandbox::{Limits, Sandbox};

use crate::again::Once;
use crate::define::check::{family, no_plan};
use crate::request::BuildRequest;
use crate::shared::Shared;
use crate::steps::Steps;
use crate::trust::guard::Guard;
use crate::values::PreFiles;
use crate::{Cancel, Failure};
use network::ScriptNetwork;
use vendored::Vendored;

/// The means of a build.
pub(crate) struct Session<'a> {
    pub(crate) request: &'a BuildRequest,
    /// Knows the distribution.
    pub(crate) family: Arc<dyn Family>,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) sandbox: Arc<Sandbox>,
    /// What a step may take.
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) downloads: DownloadStore,
    pub(crate) metadata: PathBuf,
    pub(crate) fetcher: Fetcher,
    pub(crate) now: SystemTime,
    pub(crate) shared: Option<Shared>,
    pub(crate) vendored: Option<Vendored>,
    pub(crate) network: ScriptNetwork,
    /// What is known of the layers that earlier builds made.
    pub(crate) guard: Guard,
    /// What `%pre` left, for all goes through the list of verbs.
    pub(crate) pre: Once<PreFiles>,
}

impl<'a> Session<'a> {
    /// Opens everything that a request names. `first` is its definition, as far as that can be read before its `%pre` scripts.
    pub(crate) fn open(
        request: &'a BuildRequest,
        first: &Lowered,
        steps: &'a Steps<'a>,
        cancel: &'a Cancel,
    ) -> Result<Self, Failure> {
        let sandbox = Arc::new(Sandbox::detect().map_err(kiln_rootfs::sandbox_error)?);
        let store = Store::open(&request.cache, sandbox.clone())?;
        steps.notices(store.notices());
        let options = FetchOptions {
            proxies: request.proxies.clone(),
            offline: request.offline,
            only: request.from_elsewhere.then_some(kiln_sandbox::is_elsewhere),
            files: request.vendor.clone(),
            ..FetchOptions::default()
        };
        let offline = request.offline;
        let shared = Shared::open(request.shared.as_ref(), offline, steps, &cancel.run, &store)?;
        let vendored = request.vendor.as_deref().map(Vendored::open).transpose()?;
        let metadata = match &vendored {
            Some(vendored) => vendored.metadata(&request.cache)?,
            None => request.cache.join("metadata"),
        };
        let plan = first.plan.as_ref().ok_or_else(no_plan)?;
        let family = family(&request.families, plan)?;
        processor::fits(&plan.target, kiln_sandbox::processor_level())?;
        let downloads = DownloadStore::open(request.cache.join("downloads"));
        let fetcher = Fetcher::new(options, cancel.fetch.clone());
        Ok(Session {
            family,
            pre: Once::default(),
            guard: Guard::new(&store, &sandbox, request.threads),
            network: ScriptNetwork::of(request),
            limits: limits::of_step(first),
            downloads: downloads.map_err(kiln_rootfs::Error::from)?,
            fetcher: fetcher.map_err(kiln_rootfs::Error::from)?,
            now: SystemTime::now(),
            request,
            steps,
            cancel,
            sandbox,
            store,
            metadata,
            shared,
            vendored,
        })
    }
}
