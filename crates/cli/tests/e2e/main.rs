//! The real `kiln` binary against the real distribution: what it builds, what it refuses, and what it leaves behind.
//!
//! The tests need root (they mount, and act as other users), the network for the first fill of the cache, and the tools
//! that `xtask` installs. They run one after the other, or in two lanes (`lane`), and share a warm cache below the target directory.

mod bad_input;
mod beside;
mod boots;
mod commands;
mod damage;
mod desktop;
mod disk;
mod edits;
mod faults;
mod harness;
mod judges;
mod kill;
mod lane;
mod offline_tools;
mod project;
mod random;
mod releases;
mod residue;
mod rootless;
mod rpm;
mod rpm_faults;
mod security;
mod shared;
mod stick;
mod stock;
mod warm;
