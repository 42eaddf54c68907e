//! Repositories and package files against a loopback mirror with faults, and against tools that Kiln did not write.
//!
//! Needed: gpg, gpgv, dpkg, dpkg-deb, apt-get (Debian packages gnupg, gpgv, dpkg, apt), and
//! rpm, rpmbuild, rpmsign, createrepo_c, zstd, bzip2 (rpm, createrepo-c, zstd, bzip2).

mod bombs;
mod faults;
mod gate;
mod live;
mod outsiders;
mod proxy;
mod refresh;
mod rpm;
mod store;
mod support;
mod unpack;
