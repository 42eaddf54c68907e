//! targz
