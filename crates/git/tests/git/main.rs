//! Repositories of git's own server, and of hostile ones.

mod hostile;
mod real;
