//! What starts an image.

use serde::{Deserialize, Serialize};

/// The firmware that starts the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// A PC BIOS (SeaBIOS).
    Bios,
    /// UEFI (OVMF) without Secure Boot.
    Uefi,
    /// UEFI with Secure Boot on and Microsoft's keys enrolled.
    Secure,
}

impl Firmware {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Firmware::Bios => "BIOS",
            Firmware::Uefi => "UEFI",
            Firmware::Secure => "UEFI with Secure Boot",
        }
    }
}
