//! Boots an image in QEMU and gives a verdict: serial console, QMP, screenshot.
