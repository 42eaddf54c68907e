//! The end of a build with `images`: they go from the build's engine to the store that all builds of this server have.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bollard::Docker;
use bollard::errors::Error;
use futures_util::StreamExt;

use super::container::connect;
use super::engine::{self, Engines, told};
use crate::executor::request::PushedImage;
use crate::wire::time;

/// Why an image was not kept, and Cloud Build's word for it.
pub(super) struct Trouble {
    pub(super) failure: &'static str,
    pub(super) detail: String,
}

/// Keeps images, one after the other.
pub(super) fn keep(
    engines: &Engines,
    names: &[String],
    store: &Path,
    say: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<Result<Vec<PushedImage>, Trouble>> {
    let held = engines.for_container()?;
    let Some(engine) = held.engine() else {
        return Err(io::Error::other("there is no container engine"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut kept = Vec::new();
    for name in names {
        let began = time::now();
        say(&format!("Keeping {name} for all builds"))?;
        let dir = tempfile::Builder::new()
            .prefix("push-")
            .tempdir_in(engines.dir())?;
        let archive = dir.path().join("image.tar");
        let docker = connect(engine).map_err(io::Error::other)?;
        let digest = match runtime.block_on(export(&docker, name, &archive)) {
            Ok(digest) => digest,
            Err(trouble) => return Ok(Err(trouble)),
        };
        if engine.keeps_images() {
            kept.push(PushedImage {
                name: name.clone(),
                digest,
                began,
                ended: time::now(),
            });
            continue;
        }
        let added = engine::images::add(store, &archive, name, &mut |line| {
            // A log that cannot be written shows at the next line of its own.
            drop(say(line));
        });
        if let Err(error) = added {
            let detail = format!("could not keep the image {name}: {error}");
            return Ok(Err(Trouble {
                failure: "PUSH_FAILED",
                detail,
            }));
        }
        kept.push(PushedImage {
            name: name.clone(),
            digest,
            began,
            ended: time::now(),
        });
    }
    Ok(Ok(kept))
}

/// Writes an image's archive; returns the image's digest.
async fn export(docker: &Docker, name: &str, archive: &Path) -> Result<String, Trouble> {
    let failed = |detail: String| Trouble {
        failure: "PUSH_FAILED",
        detail: format!("could not take the image {name} from the engine: {detail}"),
    };
    let image = match docker.inspect_image(name).await {
        Ok(image) => image,
        Err(Error::DockerResponseServerError {
            status_code: 404, ..
        }) => {
            return Err(Trouble {
                failure: "PUSH_IMAGE_NOT_FOUND",
                detail: format!("no step has made the image {name}, which images names"),
            });
        }
        Err(error) => return Err(failed(told(error))),
    };
    let write = |error: io::Error| failed(error.to_string());
    let mut file = File::create(archive).map_err(write)?;
    let mut bytes = docker.export_images(&[name]);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|error| failed(told(error)))?;
        file.write_all(&chunk).map_err(write)?;
    }
    image
        .id
        .ok_or_else(|| failed("it does not say which image that is".to_owned()))
}
