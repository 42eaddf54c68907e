//! Test support: a loopback mirror that injects faults, and generated trees.
