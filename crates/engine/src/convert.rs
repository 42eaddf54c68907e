//! Errors of the crates below as failures.

use kiln_rootfs::ErrorKind;

use crate::{Failure, FailureKind};

impl From<kiln_rootfs::Error> for Failure {
    fn from(error: kiln_rootfs::Error) -> Failure {
        let kind = match error.kind {
            ErrorKind::Definition => FailureKind::Definition,
            ErrorKind::Environment => FailureKind::Environment,
            ErrorKind::Step => FailureKind::Step,
            ErrorKind::Internal => FailureKind::Internal,
            ErrorKind::Cancelled => FailureKind::Cancelled,
        };
        Failure {
            origin: error.origin,
            package: error.package,
            command: error.command,
            status: error.status,
            tail: error.tail,
            causes: error.causes,
            others: error.others,
            hints: error.hints,
            ..Failure::new(kind, error.message)
        }
    }
}

impl From<kiln_image::Error> for Failure {
    fn from(error: kiln_image::Error) -> Failure {
        use kiln_image::ErrorKind as Image;
        let kind = match error.kind() {
            Image::Input => FailureKind::Definition,
            Image::Environment => FailureKind::Environment,
            Image::Step => FailureKind::Step,
            Image::Cancelled => FailureKind::Cancelled,
            _ => FailureKind::Internal,
        };
        let mut failure = Failure::new(kind, error.to_string());
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            failure.causes.push(cause.to_string());
            source = cause.source();
        }
        failure.hints.extend(error.hint().map(str::to_owned));
        failure
    }
}
