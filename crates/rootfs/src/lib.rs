//! Tools root, package installation, kickstart commands, scripts and the layer store.
